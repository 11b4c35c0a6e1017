"""Floor 2: weight-sparse pretraining, and the corpus it reads."""
