"""Floor 6: circuits that are known, and how much of them is found."""
