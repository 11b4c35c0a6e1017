"""Reduction where what a closed node holds differs from token to token: resampling, interchange.

What closed nodes hold is known before the circuit runs, so what they feed is worked out once for each
set of prompts, and added where a constant replacement adds a bias:

    closed act_in channels      their part of q, k, v and of the neurons
    closed neurons              their part of the write
    heads with nothing open     what they write: pattern and values are both known
    closed channels of others   stay in the head, as what they hold

A circuit that is run many times on the same prompts then costs what its open nodes cost. Axis letters
as in `reduced.py`; what closed nodes hold is `[L, B, T, W]`.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model import layers
from circuitjax.model.attention import mix, places_of
from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import Reduced, reduce_model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import Params
from circuitjax.model.widths import Widths

__all__ = ["TokenReduced", "held_within", "reduce_for_tokens"]


@flax.struct.dataclass
class TokenReduced:
    """A reduced model that has to be told what its closed nodes hold; a pytree of arrays.

    Attributes:
      small: the reduced model; gates over all original nodes are to be passed to it.
      shut: {site: float `[L, W]`}, 1 for what is no part of it.
    """

    small: Reduced
    shut: dict[str, jax.Array]

    @property
    def widths(self) -> Widths:
        """Padded sizes."""
        return self.small.widths


def reduce_for_tokens(
    config: TransformerConfig,
    params: Params,
    keep: Mapping[str, np.ndarray],
    *,
    own_widths: bool = False,
    at_least: Widths | None = None,
) -> TokenReduced:
    """The network without what no gate will open, whatever that holds.

    Args:
      config, params: the model.
      keep: {site: bool `[L, W]`} of the nodes that stay, a superset of what later gates open.
      own_widths, at_least: as in `reduced.reduce_model`.

    Raises:
      ValueError: an architecture that is not reduced.
    """
    by_head = config.num_layers, config.num_heads, config.d_head
    sites = tuple(f"attn.{name}" for name in "qkv")
    live = np.any([np.reshape(keep[site], by_head) for site in sites], axis=(0, -1))
    whole_heads = np.repeat(live, config.d_head, axis=-1)
    held = {**keep, **dict.fromkeys(sites, whole_heads)}
    small = reduce_model(config, params, held, own_widths=own_widths, at_least=at_least)
    shut = {
        site: jnp.asarray(~np.asarray(value, bool), jnp.float32) for site, value in held.items()
    }
    return TokenReduced(small, shut)


def held_within(
    reduced: TokenReduced, params: Params, held: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """What its layers need of what closed nodes hold: {name of `PER_TOKEN`: `[L, B, T, W']`}.

    Args:
      reduced: of these parameters.
      params: of the whole model.
      held: {site: `[L, B, T, W]`} for every site, each prompt in a row of its own.
    """
    config, small, shut = reduced.small.config, reduced.small, reduced.shut
    sites = tuple(shapes(config))

    def layer(carry: None, of: Any) -> tuple[None, dict[str, jax.Array]]:
        own, stack, closed, values = of
        closed = {**closed, "attn.mixed": closed["attn.v"]}  # whole heads, which only mix their own

        def outside(site: str) -> jax.Array:
            return values[site] * closed[site][None, None, :]

        def fed(site: str, kernel: str, index: Any = slice(None)) -> jax.Array:
            """What the closed nodes of a site feed into columns of a kernel, with its bias."""
            bias = own[f"{kernel}_bias"][index] if config.biases else None
            return layers.linear(config, outside(site), own[kernel][:, index], bias)

        def picked(site: str, name: str) -> jax.Array:
            return values[site][..., stack[f"{name}.index"]] * stack[f"{name}.real"][None, None, :]

        found: dict[str, jax.Array] = {}

        def place(name: str, site: str, kernel: str, into: str, fed_by: str) -> None:
            """What open nodes get of closed ones, and what they hold once they are closed themselves."""
            feed = fed(fed_by, kernel, stack[f"{name}.index"])
            found[into] = feed * stack[f"{name}.real"][None, None, :]
            found[f"{name}.fill"] = picked(site, name)

        for name in "qkv":
            place(name, f"attn.{name}", f"attn_{name}", f"{name}.bias", "attn.act_in")
        q, k = values["attn.q"], values["attn.k"]
        mixed, _ = mix(config, own, q, k, outside("attn.v"), places_of(q.shape[1]))
        values = {**values, "attn.mixed": mixed}
        place("post_act", "mlp.post_act", "mlp_in", "mlp_in_bias", "mlp.act_in")
        for block, inner in (("attn", "attn.mixed"), ("mlp", "mlp.post_act")):
            delta = f"{block}.resid_delta"
            opened = 1 - closed[delta][None, None, :]
            found[f"{block}_out_bias"] = opened * fed(inner, f"{block}_out") + outside(delta)
            found[f"{delta}.fill"] = values[delta]
            found[f"{block}.act_in.fill"] = picked(f"{block}.act_in", f"{block}.act_in")
        return carry, found

    everything = (
        dict(params["layers"]),
        small.stack,
        shut,
        {site: held[site] for site in sites},
    )
    result: dict[str, jax.Array] = jax.lax.scan(layer, None, everything)[1]
    return result
