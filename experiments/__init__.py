"""Floor 8: short binaries that read like recipes."""
