"""A small transformer in the making: a circuit set by hand, then active distractors around it.

Residual channels are dealt out at random. A circuit takes a few; the rest are noise channels, on
which every token has its own random values, scaled so that each embedding has root mean square 1:
a norm then hardly changes the circuit's values. Distractor heads and neurons read anything and
write to noise channels, which nothing of the circuit reads, and a little to the answer channel.

    vocabulary   0 `=` (ends every prompt), 1 and 2 the completions, 3.. tokens of the circuit,
                 from FILLER on: tokens that mean nothing
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.families import FAMILIES
from circuitjax.model.means import MIN_TOKENS, activation_means
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address
from circuitjax.model.transformer import apply, init_params

__all__ = [
    "ANSWERS",
    "END",
    "FILLER",
    "LENGTH",
    "SPLITS",
    "Draft",
    "Filler",
    "Pair",
    "Planted",
    "Sampler",
]

END, ANSWERS, FILLER, VOCABULARY, LENGTH = 0, (1, 2), 16, 64, 8
SPLITS = ("train", "validation", "test")
MARGIN = 6.0  # right minus wrong logit of the whole model

Pair = tuple[list[int], list[int]]
Filler = Callable[[], int]
# Draws a positive and a negative prompt without their first and last token.
Sampler = Callable[[np.random.Generator, Filler], Pair]

# Architectures: every circuit can be planted in every one with layers enough.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"norm": "none", "biases": True},
    {"norm": "rms", "biases": True, "attention_sinks": True},
    {"norm": "rms", "biases": False},
    {"norm": "none", "biases": False, "attention_sinks": True, "activation": "gelu"},
)


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """A model that does a task by a circuit known to the last weight.

    Attributes:
      name: of the circuit.
      model: with means over random tokens.
      nodes: addresses of the circuit's nodes, sorted.
      weights: (source address, target address) of its weights, sorted.
      edges: its residual edges `writer->reader` under interchange of the two prompts of a pair,
        sorted. Edges from what is the same in both (positions, `=`) are none.
      sampler: draws a pair of prompts.
    """

    name: str
    model: Model
    nodes: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]
    edges: tuple[str, ...]
    sampler: Sampler

    def pairs(
        self, split: str, count: int, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws pairs.

        Args:
          split: one of `SPLITS`; no text of one is in another.
          count: M.
          seed: of the draw.

        Returns:
          tokens int32 `[M, 2, T]` (positive, negative), last int32 `[M, 2]`, answers int32 `[M, 2]`.
        """
        return draw(self.sampler, split, count, seed)


def draw(
    sampler: Sampler, split: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See `Planted.pairs`. Every prompt begins with a filler, and that filler tells the split."""
    which = SPLITS.index(split)
    rng = np.random.default_rng([seed, which])

    def filler() -> int:
        return int(rng.integers(FILLER, VOCABULARY))

    rows = []
    for _ in range(count):
        first = FILLER + which + 3 * int(rng.integers((VOCABULARY - FILLER) // 3))
        rows.append([[first, *prompt, END] for prompt in sampler(rng, filler)])
    tokens = np.array(rows, np.int32)
    last = np.full((count, 2), tokens.shape[2] - 1, np.int32)
    return tokens, last, np.tile(np.array(ANSWERS, np.int32), (count, 1))


class Draft:
    """What a builder works on: `channel`, `head`, `neuron` and `layers` are dealt, `connect` sets."""

    def __init__(self, name: str, seed: int, num_layers: int):
        """`num_layers` is the least that the circuit needs; there are up to 3."""
        self.name, self.seed = name, seed
        self.rng = rng = np.random.default_rng([seed, *name.encode()])
        # Few enough shapes that models share their compiled programs.
        total = 3 if num_layers == 1 and seed % 2 else max(num_layers, 1 + seed % 3)
        self.config = TransformerConfig(
            num_layers=total,
            d_model=32,
            num_heads=2,
            d_head=4,
            d_mlp=16,
            vocab_size=VOCABULARY,
            context_length=LENGTH,
            final_bias=True,
            **({"activation": "relu"} | VARIANTS[seed % len(VARIANTS)]),
        )
        shaped = jax.eval_shape(lambda: init_params(jax.random.key(0), self.config))
        self.params = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, np.float32), jax.tree.map(lambda x: x, dict(shaped))
        )
        self.stack = self.params["layers"]
        self._free = list(rng.permutation(self.config.d_model))
        self._neurons = [list(rng.permutation(self.config.d_mlp)) for _ in range(total)]
        self.taken: list[int] = []
        self.weights: dict[tuple[str, str], float] = {}
        self.answer = self.channel()
        # What a prompt's last token alone has, for queries of the last position.
        self.at_end = self.channel()
        self.params["embed"][END, self.at_end] = 1.0

    @property
    def dilution(self) -> float:
        """How many equal weights a uniform pattern at the last position is shared out to."""
        return LENGTH + (1.0 if self.config.attention_sinks else 0.0)

    def channel(self) -> int:
        """A residual channel of the circuit's own."""
        self.taken.append(int(self._free.pop()))
        return self.taken[-1]

    def layers(self, count: int) -> list[int]:
        """Different layers in ascending order."""
        chosen = self.rng.choice(self.config.num_layers, count, replace=False)
        return sorted(int(layer) for layer in chosen)

    def neuron(self, layer: int) -> str:
        """Address of a neuron of the circuit's own."""
        return f"{layer}.mlp.post_act.{self._neurons[layer].pop()}"

    def head(self) -> int:
        """Any head."""
        return int(self.rng.integers(self.config.num_heads))

    def embed(self, tokens: Sequence[int], channel: int, value: float) -> None:
        """Gives tokens a value on a channel."""
        self.params["embed"][list(tokens), channel] = value

    def connect(self, source: str, target: str, weight: float) -> None:
        """Sets a weight between two nodes of one layer, which makes all three the circuit's."""
        kernel, place = self._place(source, target)
        self.stack[kernel][place] = weight
        self.weights[source, target] = weight

    def attend(
        self, layer: int, head: int, query: int, key: int, score: float, channel: int = 0
    ) -> None:
        """A pattern: where channel `query` is 1, a position with 1 on channel `key` scores so."""
        weight = (score * self.config.d_head**0.5) ** 0.5
        for part, source in (("q", query), ("k", key)):
            node = f"{layer}.attn.{part}.h{head}.c{channel}"
            self.connect(f"{layer}.attn.act_in.{source}", node, weight)

    def move(
        self, layer: int, head: int, sources: Sequence[int], target: int, scale: float
    ) -> None:
        """Moves the sum of channels through a head's v to another channel."""
        v = f"{layer}.attn.v.h{head}.c{int(self.rng.integers(self.config.d_head))}"
        for source in sources:
            self.connect(f"{layer}.attn.act_in.{source}", v, scale)
        self.connect(v, f"{layer}.attn.resid_delta.{target}", 1.0)

    def compute(self, layer: int, source: int, target: int, read: float, write: float) -> None:
        """A neuron between two channels."""
        neuron = self.neuron(layer)
        self.connect(f"{layer}.mlp.act_in.{source}", neuron, read)
        self.connect(neuron, f"{layer}.mlp.resid_delta.{target}", write)

    def _place(self, source: str, target: str) -> tuple[str, tuple[int, int, int]]:
        layer, one, i = parse_address(self.config, source)
        _, other, j = parse_address(self.config, target)
        (family,) = [f for f in FAMILIES if (f.source, f.target) == (one, other)]
        return family.kernel, (layer, i, j)

    def finish(
        self,
        edges: Sequence[str],
        sampler: Sampler,
        true_weights: dict[tuple[str, str], float] | None = None,
        margin: float = MARGIN,
    ) -> Planted:
        """Adds distractors, scales the unembedding to a margin, takes means.

        Not all that was connected need be the circuit: `true_weights` says what is.
        """
        self._surround()
        unembed, right, wrong = self.params["unembed"], *ANSWERS
        unembed[self.answer, right], unembed[self.answer, wrong] = 0.5, -0.5
        tokens, _, _ = draw(sampler, "train", 128, seed=self.seed)
        logits = _run(self.config, self.params, tokens.reshape(-1, LENGTH)).reshape(128, 2, -1)
        difference = (logits[..., right] - logits[..., wrong]).mean(axis=0)
        scale = 2 * margin / (difference[0] - difference[1])
        unembed *= scale
        middle = scale * difference.mean() / 2
        self.params["final_bias"][[right, wrong]] = -middle, middle
        rows = self.rng.integers(0, VOCABULARY, (8, MIN_TOKENS // (8 * LENGTH), LENGTH))
        means, _ = activation_means(self.config, self.params, rows)
        model = Model(self.name, self.config, self.params, means=means)
        true = self.weights if true_weights is None else true_weights
        nodes = {node for pair in true for node in pair}
        return Planted(
            self.name,
            model,
            tuple(sorted(nodes)),
            tuple(sorted(true)),
            tuple(sorted(edges)),
            sampler,
        )

    def _sparse(self, shape: tuple[int, ...], scale: float, share: float = 0.3) -> np.ndarray:
        values = self.rng.normal(0, scale, shape) * (self.rng.random(shape) < share)
        return values.astype(np.float32)

    def _surround(self) -> None:
        config, params = self.config, self.params
        noise = sorted(set(range(config.d_model)) - set(self.taken))
        own = set(self.weights)
        nodes = {parse_address(config, node) for pair in own for node in pair}

        def is_own(site: str) -> np.ndarray:
            return np.array(
                [
                    [(layer, site, i) in nodes for i in range(config.width(site))]
                    for layer in range(config.num_layers)
                ]
            )

        # Tokens and positions: noise up to a root mean square of 1.
        embed = params["embed"]
        free = self.rng.normal(0, 1, (VOCABULARY, len(noise)))
        left = config.d_model - (embed**2).sum(axis=1)
        embed[:, noise] = free * np.sqrt(left / (free**2).sum(axis=1))[:, None]
        params["positions"][:, noise] = self.rng.normal(0, 0.1, (LENGTH, len(noise)))
        for part in "qkv":
            site = f"attn.{part}"
            kernel, mine = self.stack[f"attn_{part}"], is_own(site)
            heads = mine.reshape(*mine.shape[:-1], config.num_heads, config.d_head).any(axis=-1)
            heads = np.repeat(heads | self._uses(nodes), config.d_head, axis=1)
            scale = 0.3 if part == "v" else np.where(heads, 0.1, 0.4)[:, None, :]
            extra = self._sparse(kernel.shape, 1.0) * scale * ~mine[:, None, :]
            if part != "v":
                extra[:, self.taken] = 0.0
            kernel += extra.astype(np.float32)
        for kernel_name, site, scale in (
            ("mlp_in", "mlp.post_act", 0.3),
            ("attn_out", "attn.v", 0.15),
            ("mlp_out", "mlp.post_act", 0.15),
        ):
            kernel, mine = self.stack[kernel_name], is_own(site)
            if kernel_name == "mlp_in":
                kernel += self._sparse(kernel.shape, scale) * ~mine[:, None, :]
                continue
            # The circuit's own parts write to noise channels too; nobody's noise but a little on
            # the answer channel reaches a channel of the circuit.
            kernel[:, :, noise] += self._sparse((*kernel.shape[:2], len(noise)), scale)
            leak = self._sparse(kernel.shape[:2], 0.02) * ~mine
            kernel[:, :, self.answer] += leak * self._leaks(kernel_name)
        if config.biases:
            for name in ("attn_q", "attn_k", "attn_v", "mlp_in"):
                site = "mlp.post_act" if name == "mlp_in" else f"attn.{name[-1]}"
                bias = self.stack[f"{name}_bias"]
                bias += self._sparse(bias.shape, 0.1) * ~is_own(site)
            for name in ("attn_out_bias", "mlp_out_bias"):
                bias = self.stack[name]
                bias[:, noise] = self._sparse((config.num_layers, len(noise)), 0.1)
        if config.norm == "rms":
            for name in ("attn_norm_scale", "mlp_norm_scale"):
                self.stack[name][:] = 1.0
            params["final_norm_scale"][:] = 1.0
        params["unembed"][noise] = self._sparse((len(noise), VOCABULARY), 0.02)

    def _uses(self, nodes: set[tuple[int, str, int]]) -> np.ndarray:
        """Which heads `[L, H]` move something of the circuit: their pattern must stay clean."""
        used = np.zeros((self.config.num_layers, self.config.num_heads), bool)
        for layer, site, index in nodes:
            if site == "attn.v":
                used[layer, index // self.config.d_head] = True
        return used

    def _leaks(self, kernel: str) -> np.ndarray:
        """Where `[L, 1]` writing to the answer channel adds no weight between two true nodes."""
        block = kernel.split("_")[0]
        written = {parse_address(self.config, target)[:2] for _, target in self.weights}
        site = f"{block}.resid_delta"
        layers = range(self.config.num_layers)
        return np.array([[(layer, site) not in written] for layer in layers], np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _forward(config: TransformerConfig, params: dict, tokens: jax.Array) -> jax.Array:
    return apply(config, params, tokens).logits[:, -1]


def _run(config: TransformerConfig, params: dict, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(_forward(config, params, tokens), np.float64)
