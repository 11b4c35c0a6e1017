"""Floor 6: tables, plots, and the directory a run writes."""
