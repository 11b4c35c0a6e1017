"""What no transformer has, or takes: refused before anything loops over it or makes room for it.

An index beyond an array is no error to JAX: it takes the last row, and the answer looks like any other.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from circuitjax.core.files import cut
from circuitjax.model.config import TransformerConfig

__all__ = ["MOST_LAYERS", "MOST_WIDTH", "check_parameters", "check_sizes", "check_tokens"]

#: Some ten times what has ever been trained.
MOST_LAYERS = 2**11
#: Of any other axis: channels, heads, neurons, tokens, positions.
MOST_WIDTH = 2**24
_MOST_PARAMETERS = 10**13


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


def check_parameters(where: str, config: TransformerConfig) -> None:
    """Refuses a config whose every size may be, but not all of them together.

    Raises:
      ValueError: one line that says about how many parameters it asks for.
    """
    heads = config.num_heads * config.d_head
    layer = 4 * config.d_model * heads + 3 * config.d_model * config.d_mlp
    count = config.num_layers * layer + 2 * config.vocab_size * config.d_model
    if count > _MOST_PARAMETERS:
        raise ValueError(
            f"{where}: sizes make up to {count:.1e} parameters; at most {_MOST_PARAMETERS:.0e} may be"
        )


def check_tokens(
    config: TransformerConfig, tokens: Any, positions: Any = None, *, longer: bool = False
) -> None:
    """Refuses what would be read beyond the embedding's rows, or beyond the prompts.

    Values are looked at where there are any yet: a function that is being compiled sees shapes alone.

    Args:
      config: of the model.
      tokens: ids `[B, T]`.
      positions: `[B, P]`, where logits are wanted; None means everywhere.
      longer: whether T may exceed the context length.

    Raises:
      ValueError: other shapes or types; an id or a position out of range, which the line names.
    """
    if np.ndim(tokens) != 2:
        raise ValueError(
            f"tokens are shaped {np.shape(tokens)}; they must be [sequences, positions]"
        )
    length = np.shape(tokens)[1]
    if length > config.context_length and not longer:
        raise ValueError(
            f"{length} tokens exceed the model's context length of {config.context_length}"
        )
    for what, ids, limit in (("token", tokens, config.vocab_size), ("position", positions, length)):
        if ids is None or isinstance(ids, jax.core.Tracer):
            continue
        values = np.asarray(ids)
        if values.size and not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"the {what}s are {values.dtype}; they must be whole numbers")
        wrong = values[(values < 0) | (values >= limit)]
        if wrong.size:
            whose = "the model's" if what == "token" else "the prompts'"
            raise ValueError(f"there is no {what} {wrong[0]}: {whose} are 0 to {limit - 1}")
