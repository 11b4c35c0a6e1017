"""Reading a foreign JSON file: what every importer does first."""

from circuitjax.core.files import read_object, read_text

__all__ = ["read_object", "read_text"]
