"""Floor 3: gates, what replaces the closed, what is minimised; training, selection, calibration."""
