"""Floor 2: models that come with the package."""
