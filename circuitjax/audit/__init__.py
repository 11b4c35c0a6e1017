"""Floor 5: how far to trust a circuit."""
