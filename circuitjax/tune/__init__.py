"""Floor 6: a tuner of hyperparameters, as a pure ask and tell, and the runner of suites."""
