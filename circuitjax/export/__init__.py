"""Circuits for other programs: JSON, GraphML, DOT, a benchmark's graph, the authors' viewer."""
