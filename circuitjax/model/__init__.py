"""Floor 1: the transformer, its node sites, and the record that holds a model."""
