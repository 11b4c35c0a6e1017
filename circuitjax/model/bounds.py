"""Sizes no transformer has: refused before anything loops over them or makes room for them."""

from collections.abc import Mapping
from typing import Any

from circuitjax.core.files import cut

__all__ = ["MOST_LAYERS", "MOST_WIDTH", "check_sizes"]

#: Some ten times what has ever been trained.
MOST_LAYERS = 2**11
#: Of any other axis: channels, heads, neurons, tokens, positions.
MOST_WIDTH = 2**24


def check_sizes(where: str, fields: Mapping[str, Any], layers: str = "num_layers") -> None:
    """Refuses whole numbers in a config that are larger than any network's.

    Args:
      where: what messages call the config.
      fields: {name: value}; values that are no whole numbers are passed over.
      layers: name of the number of layers.

    Raises:
      ValueError: one line that names the first field too large.
    """
    for name, value in fields.items():
        most = MOST_LAYERS if name == layers else MOST_WIDTH
        if type(value) is int and value > most:
            raise ValueError(f"{where}: {name} is {cut(value)}; it must be at most {most}")
