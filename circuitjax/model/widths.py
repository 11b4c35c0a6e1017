"""How wide each layer of a reduced model is: a circuit's layers differ, and run at their own widths.

All layers are stored at one width, that of the widest, and neighbours of equal widths run as one scan.
A deep model is cut into a few such stretches only, as each is a program of its own to compile.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

__all__ = ["Stretch", "Widths", "narrow", "stretches", "widest"]

_MOST = 4  # stretches of layers


class Widths(NamedTuple):
    """Padded sizes: heads that attend H', steady ones H", channels per head C', neurons F', reads R."""

    heads: int
    steady: int
    channels: int
    neurons: int
    attn_reads: int
    mlp_reads: int


class Stretch(NamedTuple):
    """Neighbouring layers that run at the same widths: from `start` to before `stop`."""

    start: int
    stop: int
    widths: Widths

    def split(self, layer: int) -> list["Stretch"]:
        """What comes before a layer, this layer, and what comes after it, as far as they are in here."""
        borders = sorted(
            {self.start, self.stop} | ({layer, layer + 1} & {*range(self.start, self.stop)})
        )
        return [Stretch(a, b, self.widths) for a, b in itertools.pairwise(borders)]


# Reduced axes of the stacked arrays, after that of the layers; "columns" are heads times channels.
_AXES: dict[str, tuple[str, ...]] = {
    **{f"{name}.kernel": ("attn_reads", "columns") for name in "qkv"},
    **{f"{name}.{of}": ("columns",) for name in "qkv" for of in ("bias", "index", "real", "fill")},
    **{f"attn.act_in.{of}": ("attn_reads",) for of in ("index", "real", "fill")},
    **{f"mlp.act_in.{of}": ("mlp_reads",) for of in ("index", "real", "fill")},
    **{f"post_act.{of}": ("neurons",) for of in ("index", "real", "fill")},
    "attn_sink": ("heads",),
    "attn_out": ("columns",),
    "steady_sink": ("steady",),
    "steady_out": ("steady",),
    "mlp_in": ("mlp_reads", "neurons"),
    "mlp_in_bias": ("neurons",),
    "mlp_out": ("neurons",),
}


def widest(widths: Sequence[Widths]) -> Widths:
    """The smallest that hold all of them."""
    return Widths(*(max(sizes) for sizes in zip(*widths, strict=True)))


def stretches(widths: Sequence[Widths], most: int = _MOST) -> tuple[Stretch, ...]:
    """Joins neighbouring layers of equal widths, and then those that waste least, down to `most`."""
    found = [Stretch(layer, layer + 1, own) for layer, own in enumerate(widths)]

    def joined(i: int) -> Stretch:
        both = found[i], found[i + 1]
        return Stretch(both[0].start, both[1].stop, widest([part.widths for part in both]))

    def waste(i: int) -> int:
        return _work(joined(i)) - _work(found[i]) - _work(found[i + 1])

    while len(found) > 1:
        best = min(range(len(found) - 1), key=waste)
        if len(found) <= most and waste(best) > 0:
            break
        found[best : best + 2] = [joined(best)]
    return tuple(found)


def _work(stretch: Stretch) -> int:
    """Of a token, roughly: weights of the kernels, with a residual stream as wide as all reads."""
    own = stretch.widths
    columns, reads = own.heads * own.channels, own.attn_reads + own.mlp_reads
    each = own.attn_reads * 3 * columns + own.mlp_reads * own.neurons
    each += (columns + own.steady + own.neurons) * (1 + reads) + reads
    return (stretch.stop - stretch.start) * each


def narrow(
    stack: Mapping[str, jax.Array], stored: Widths, stretch: Stretch, axis: int = 1
) -> dict[str, jax.Array]:
    """The arrays `[L', ...]` of a stretch's layers at its own widths.

    Args:
      stack: {name: `[L, ...]`} at the widths `stored`.
      stored: of all layers.
      stretch: which layers; none of its widths is above that stored.
      axis: where the reduced axes begin: 3 for what differs from token to token, `[L, B, T, ...]`.
    """
    return {
        name: _cut(
            value[stretch.start : stretch.stop], _AXES.get(name, ()), stored, stretch.widths, axis
        )
        for name, value in stack.items()
    }


def _cut(
    value: jax.Array, axes: tuple[str, ...], stored: Widths, own: Widths, first: int
) -> jax.Array:
    for axis, name in enumerate(axes, start=first):
        before, after = value.shape[:axis], value.shape[axis + 1 :]
        everything = (slice(None),) * axis
        if name == "columns":
            by_head = value.reshape(*before, stored.heads, stored.channels, *after)
            by_head = by_head[(*everything, slice(own.heads), slice(own.channels))]
            value = by_head.reshape(*before, own.heads * own.channels, *after)
        else:
            value = value[(*everything, slice(getattr(own, name)))]
    return value
