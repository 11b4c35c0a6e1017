"""Floor 2: other libraries' checkpoints become a `Model`."""
