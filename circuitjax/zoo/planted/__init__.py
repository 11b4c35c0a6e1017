"""Small models whose circuit is known, because it was set by hand."""
