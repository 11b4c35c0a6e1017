"""Floor 0: pieces that know no transformer."""
