"""Floor 4: the circuit as a value: its graph, its record, its compact runnable form."""
