"""What every grain of gates is to all that stands above: one protocol, and the values that go with it.

A gated model is a frozen network with G gates in it, a pytree that goes into compiled functions. An open
gate (1) lets through what its part computes within the circuit; a closed one (0) what replaces the part:

    mean, zero    a constant, held by the gated model itself
    resample      what the part held in the same network's run on another prompt of the batch
    interchange   what it held on the example's own corrupted prompt

Axis letters: G gates, M examples, P positions read, V vocabulary, R right and R' wrong completions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from circuitjax.gated.examples import Batch
from circuitjax.model.config import TransformerConfig

__all__ = ["GatedModel", "Held", "Part", "View"]

# What replaces closed parts: a pytree whose leaves are constants, or have sequences on axis 1 and tokens
# on axis 2.
Held = Any


class Part(NamedTuple):
    """Open gates as a circuit, after what does nothing has been removed.

    Attributes:
      opened: {name: arrays} that say what is open, as a `Circuit` keeps them.
      held: constants that replace the rest; None where replacements are per prompt.
      removed: how many parts were removed, by kind.
      nodes, edges: what remains.
    """

    opened: dict[str, Any]
    held: Held
    removed: Mapping[str, int]
    nodes: int
    edges: int


class GatedModel(Protocol):
    """One grain of one network; static fields shape a program, arrays may be traced."""

    @property
    def grain(self) -> str:
        """Name of the grain."""

    @property
    def config(self) -> TransformerConfig:
        """Of the network."""

    @property
    def ablation(self) -> str:
        """What a closed part holds; see `replacement.ABLATIONS`."""

    @property
    def held(self) -> Held:
        """The constants that replace closed parts; None where replacements are per prompt."""

    @property
    def folds(self) -> bool:
        """Whether what is constant under the ablation may be folded into constants."""

    @property
    def num_gates(self) -> int:
        """G, padding included."""

    @property
    def num_owners(self) -> int:
        """Gates that a training may put on the owners of gates besides: nodes, or writers; 0: none."""

    @property
    def eval_items(self) -> int:
        """Items of a forward pass of an evaluation."""

    @property
    def scouted_items(self) -> int:
        """Items of a first, rougher look: of a first search for k, of ties, of elimination."""

    @property
    def shares_rows(self) -> bool:
        """Whether several prompts may share a row, where nothing is replaced prompt by prompt."""

    @property
    def always_compares(self) -> bool:
        """Whether a cut always takes the KL: the whole model's run costs little beside a circuit's."""

    @property
    def slope_levels(self) -> tuple[float, ...]:
        """Heights of the open gates that an estimate of what closing costs averages slopes over."""

    @property
    def freezes_norms(self) -> bool:
        """Whether `logits` takes `norms`, factors of another run's norms; see `transformer.apply`."""

    @property
    def units(self) -> str:
        """What a gate opens, where that is a choice: `channel`, `head` or `block`; see `units.py`."""

    def exists(self) -> np.ndarray:
        """bool `[G]`: gates that can matter; the others are padding, or always open."""

    def draw(self, key: jax.Array) -> jax.Array:
        """Standard normal numbers `[G]` for scores to start from."""

    def owned(self, owners: jax.Array, least: bool = False) -> jax.Array:
        """Product over each gate's owners of values `[num_owners]`, or the least of them: `[G]`."""

    def count(self, chance: jax.Array) -> jax.Array:
        """Expected number of parts that gates open with these chances `[G]`."""

    def size(self, chance: jax.Array) -> jax.Array:
        """Expected size of the circuit that gates leave, with a gradient: what `hold` makes small.

        Nodes and the edges between them at the grain of nodes, else as `count`.
        """

    def training_slices(self, batch: Batch) -> int:
        """Parts in which a training batch is best worked out on CPU."""

    def full(self, batch: Batch) -> jax.Array:
        """Logits of the whole network, `[M, P, V]`."""

    def observed(
        self, tokens: jax.Array, positions: jax.Array, kept: slice = slice(None)
    ) -> tuple[jax.Array, Held]:
        """Logits `[B, P, V]` of the whole network, and what every part held in the kept sequences."""

    def needed(self, held: Held) -> Held:
        """Of what every part held, as `observed` returns it, what `logits` takes."""

    def logits(self, gates: jax.Array, batch: Batch, held: Held = None) -> jax.Array:
        """Logits `[M, P, V]` under gates `[G]`; `held` replaces closed parts, None: the model's own."""

    def answers(self, gates: jax.Array, batch: Batch, held: Held = None) -> jax.Array:
        """The same for the right and wrong completions alone, `[M, R + R']`."""

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """Of open gates bool `[G]` those that lie on a path from input to output."""

    def cut(self, first: np.ndarray) -> np.ndarray:
        """Of the first gates of a ranking, bool `[G]`, those that a cut opens."""

    def cost(self, opened: np.ndarray) -> int:
        """How many edges the open gates leave, as the grain counts them."""

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`: how many edges closing each open gate alone would save, at least; 0 for closed ones."""

    def nodes(self, opened: np.ndarray) -> int:
        """How many nodes they leave."""

    def totals(self) -> tuple[int, int]:
        """Nodes and edges of the whole network, as the grain counts them."""

    def work(self) -> int:
        """What a run of the whole network costs, in the unit in which open gates are counted."""

    def sizes(self) -> Sequence[int]:
        """Numbers of open gates up to which a reduced model of its own pays; none where none exists."""

    def reduced(
        self, opened: np.ndarray, *, own_widths: bool = False, at_least: Any = None
    ) -> "GatedModel":
        """The same function of gates within `opened`, smaller; or itself. See `model.reduced`."""

    def clean(self, opened: np.ndarray) -> Part:
        """The open gates as a circuit that computes the same."""

    def groups(self) -> np.ndarray:
        """int `[G]`: gates of one group are alike (a site of a layer), for matched random sets."""

    def names(self) -> list[str]:
        """Address of every gate."""


class View(NamedTuple):
    """A circuit as gates of a gated model: bool `[G]` of those open."""

    model: GatedModel
    gates: np.ndarray
