"""The transformer: a pure function of (parameters, tokens, gates, fills).

    x = embed(tokens) [+ positions]
    per layer:   x += gate(W_o attend(gate(q), gate(k), gate(v)))   from  gate(norm(x))
                 x += gate(W_out gate(act(W_in gate(norm(x)))))
                 or, gated:   W_out gate(act(gate(W_gate r)) * gate(W_up r)),   r = gate(norm(x))
    logits = unembed(norm(x)) [+ final bias] [+ bigram row of the token]

with gate(x) = m x + (1 - m) r at every node site (AbsTopK, where there is any, acts before it).
Parameters of all layers are stacked on axis 0 and scanned, so compile time does not grow with
depth. `gates` and `fills` are pytrees {site: [L, W]}; a site that is absent is open (gates) or zero
(fills); a fill may also be per token, [L, B, T, W].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from circuitjax.model import layers
from circuitjax.model.attention import Places, layer_traits, mix, places_of
from circuitjax.model.bounds import check_tokens
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.layout import Layout

__all__ = [
    "CAPTURABLE",
    "Fills",
    "Gates",
    "Norms",
    "Output",
    "Params",
    "Transformer",
    "apply",
    "init_params",
]

Params = Mapping[str, Any]
Gates = Mapping[str, jax.Array]
Fills = Mapping[str, jax.Array]
Norms = Mapping[str, jax.Array]

# What `capture` can name besides the model's node sites: the residual stream before the layer, as the
# MLP reads it, and after the layer; the attention pattern, and the values that it mixed.
CAPTURABLE = (*SITES, "resid.pre", "resid.mid", "resid.post", "attn.pattern", "attn.mixed")


@flax.struct.dataclass
class Output:
    """What a forward pass returns.

    Attributes:
      logits: float32 `[B, T, V]`, or `[B, P, V]` at the positions asked for.
      captured: {name: `[L, B, T, W]`} for each name in `capture` (`[L, B, H, T, T]` for patterns).
    """

    logits: jax.Array
    captured: dict[str, jax.Array]


class Block(nn.Module):
    """One layer. With `positions` it computes only what those positions need."""

    config: TransformerConfig
    capture: tuple[str, ...] = ()

    def _matrix(self, name: str, inputs: int, outputs: int) -> jax.Array:
        return self.param(name, nn.initializers.normal(inputs**-0.5), (inputs, outputs))

    def _bias(self, name: str, width: int) -> jax.Array | None:
        return self.param(name, nn.initializers.zeros, (width,)) if self.config.biases else None

    def _norm(self, name: str, width: int) -> dict[str, jax.Array]:
        if self.config.norm == "none":
            return {}
        params = {"scale": self.param(f"{name}_scale", nn.initializers.ones, (width,))}
        if self.config.norm == "layer" and self.config.norm_bias:
            params["bias"] = self.param(f"{name}_bias", nn.initializers.zeros, (width,))
        return params

    def _read(
        self,
        block: str,
        x: jax.Array,
        position_embedding: jax.Array | None,
        factor: jax.Array | None,
    ) -> jax.Array:
        norm = self._norm(f"{block}_norm", self.config.d_model)
        x = layers.normalise(self.config, x, norm, factor)
        if position_embedding is None:
            return x
        norm = self._norm(f"{block}_position_norm", self.config.d_position)
        extra = layers.normalise(self.config, position_embedding, norm)
        return jnp.concatenate([x, extra], axis=-1)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position_embedding: jax.Array | None,
        gates: Gates,
        fills: Fills,
        positions: jax.Array | None = None,
        norms: Norms | None = None,
        visible: jax.Array | None = None,
        places: Places | None = None,
        added: Fills | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x `[B, T, D]` to `[B, T, D]`, or to `[B, P, D]` at `positions` `[B, P]`.

        `visible` is `[B, T, T]`, of all slots.
        """
        config, seen, norms = self.config, {}, norms or {}

        def plus(site: str, value: jax.Array, places: jax.Array | None) -> jax.Array:
            if added is None or site not in added:
                return value
            more = added[site]
            return value + (more if places is None else layers.take_positions(more, places))

        def node(site: str, value: jax.Array, places: jax.Array | None) -> jax.Array:
            value = layers.keep_largest(config, value, site)
            seen[site] = value
            return layers.replace_closed(value, gates.get(site), fills.get(site), places)

        def at(value: jax.Array) -> jax.Array:
            return value if positions is None else layers.take_positions(value, positions)

        seen["resid.pre"] = x
        read = self._read("attn", x, position_embedding, norms.get("attn"))
        read = node("attn.act_in", read, None)
        width, shared = config.d_attention, config.width("attn.k")
        sizes = {"q": width, "k": shared, "v": shared}
        kernels = [self._matrix(f"attn_{name}", config.d_in, size) for name, size in sizes.items()]
        biases = [self._bias(f"attn_{name}_bias", size) for name, size in sizes.items()]
        joined = jnp.concatenate([b for b in biases if b is not None]) if config.biases else None
        if positions is None:
            qkv = layers.linear(config, read, jnp.concatenate(kernels, axis=1), joined)
            q, k, v = jnp.split(qkv, (width, width + shared), axis=-1)
        else:
            kv_bias = None if joined is None else joined[width:]
            kv = layers.linear(config, read, jnp.concatenate(kernels[1:], axis=1), kv_bias)
            q, (k, v) = layers.linear(config, at(read), kernels[0], biases[0]), jnp.split(kv, 2, -1)
        q = node("attn.q", plus("attn.q", q, positions), positions)
        k, v = (node(s, plus(s, x, None), None) for s, x in (("attn.k", k), ("attn.v", v)))
        own = {}
        if config.attention_sinks:
            own["attn_sink"] = self.param("attn_sink", nn.initializers.zeros, (config.num_heads,))
        if config.qk_norm:
            for name in ("attn_q_norm_scale", "attn_k_norm_scale"):
                own[name] = self.param(name, nn.initializers.ones, (config.d_head,))
        if visible is not None:
            visible = at(visible)
        places = places_of(x.shape[1]) if places is None else places
        mixed, seen["attn.pattern"] = mix(config, own, q, k, v, places, positions, visible)
        seen["attn.mixed"] = mixed
        kernel = self._matrix("attn_out", width, config.d_model)
        delta = layers.linear(config, mixed, kernel, self._bias("attn_out_bias", config.d_model))
        delta = plus("attn.resid_delta", delta, positions)
        before = at(x)
        x = self._write("attn", before, node("attn.resid_delta", delta, positions))

        seen["resid.mid"] = stream = before if config.parallel else x
        if position_embedding is not None:
            position_embedding = at(position_embedding)
        read = self._read("mlp", stream, position_embedding, norms.get("mlp"))
        read = node("mlp.act_in", read, positions)

        def project(name: str, site: str) -> jax.Array:
            kernel = self._matrix(name, config.d_in, config.d_mlp)
            found = layers.linear(config, read, kernel, self._bias(f"{name}_bias", config.d_mlp))
            return plus(site, found, positions)

        if config.gated_mlp:
            gate = node("mlp.gate", project("mlp_gate", "mlp.gate"), positions)
            up = node("mlp.up", project("mlp_up", "mlp.up"), positions)
            hidden = layers.gated(config, gate, up)
        else:
            hidden = layers.activate(config, project("mlp_in", "mlp.post_act"))
        hidden = node("mlp.post_act", hidden, positions)
        kernel = self._matrix("mlp_out", config.d_mlp, config.d_model)
        delta = layers.linear(config, hidden, kernel, self._bias("mlp_out_bias", config.d_model))
        delta = plus("mlp.resid_delta", delta, positions)
        x = self._write("mlp", x, node("mlp.resid_delta", delta, positions))
        seen["resid.post"] = x
        return x, {name: seen[name] for name in self.capture}

    def _write(self, block: str, x: jax.Array, delta: jax.Array) -> jax.Array:
        if self.config.post_norms:
            norm = self._norm(f"{block}_post_norm", self.config.d_model)
            delta = layers.normalise(self.config, delta, norm)
        x = x + delta
        if self.config.residual_activation == "relu":
            x = jax.nn.relu(x)
        return layers.keep_largest(self.config, x, f"resid.post_{block}")


class Transformer(nn.Module):
    """The whole model; use `apply` unless you need Flax's own machinery."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        gates: Gates | None = None,
        fills: Fills | None = None,
        *,
        positions: jax.Array | None = None,
        capture: tuple[str, ...] = (),
        norms: Norms | None = None,
        layout: Layout | None = None,
        added: Fills | None = None,
    ) -> Output:
        config = self.config
        normal = nn.initializers.normal
        table = self.param("embed", normal(1.0), (config.vocab_size, config.d_model))
        x = layers.embed(config, table, tokens)
        position_embedding = None
        if config.position in ("learned", "concatenated"):
            width = config.d_position or config.d_model
            places = self.param("positions", normal(1.0), (config.context_length, width))
            places = places[None, : tokens.shape[1]] if layout is None else places[layout.places]
            if config.position == "learned":
                x = x + places
            else:
                position_embedding = jnp.broadcast_to(places, (*tokens.shape, width))

        block = Block(config, capture, parent=None)
        stacked = self.param("layers", _init_stack, block, x[:1, :1], position_embedding)
        gates, fills = dict(gates or {}), dict(fills or {})
        visible = None if layout is None else layout.visible(config.causal)

        def step(carry: jax.Array, layer: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            params, layer_gates, layer_fills, factors, traits, layer_added = layer
            result: Any = block.apply(
                {"params": params},
                carry,
                position_embedding,
                layer_gates,
                layer_fills,
                None,
                factors,
                visible,
                places_of(tokens.shape[1], layout, traits),
                layer_added,
            )
            return result

        final = dict(norms or {})
        last_factor = final.pop("final", None)
        everything = (stacked, gates, fills, final, layer_traits(config), dict(added or {}))
        if positions is None or capture or norms:
            x, captured = lax.scan(step, x, everything)
            if positions is not None:
                x = layers.take_positions(x, positions)
                if last_factor is not None:
                    last_factor = layers.take_positions(last_factor, positions)
        else:
            # The last layer needs queries, attention output, MLP only where logits are asked for.
            x, captured = lax.scan(step, x, jax.tree.map(lambda leaf: leaf[:-1], everything))
            last = jax.tree.map(lambda leaf: leaf[-1], everything)
            params, last_gates, last_fills, _, traits, last_added = last
            x, _ = block.apply(
                {"params": params},
                x,
                position_embedding,
                last_gates,
                last_fills,
                positions,
                None,
                visible,
                places_of(tokens.shape[1], layout, traits),
                last_added,
            )
        if config.norm != "none":
            ones, zeros, width = nn.initializers.ones, nn.initializers.zeros, config.d_model
            norm = {"scale": self.param("final_norm_scale", ones, (width,))}
            if config.norm == "layer" and config.norm_bias:
                norm["bias"] = self.param("final_norm_bias", zeros, (width,))
            x = layers.normalise(config, x, norm, last_factor)
        if config.tied_unembedding:
            kernel = table.T
        else:
            shape = (config.d_model, config.vocab_size)
            kernel = self.param("unembed", normal(config.d_model**-0.5), shape)
        logits = layers.cap_logits(config, layers.linear(config, x, kernel))
        if config.final_bias:
            bias = self.param("final_bias", nn.initializers.zeros, (config.vocab_size,))
            logits = logits + bias[None, None, :]
        if config.bigram:
            shape = (config.vocab_size, config.vocab_size)
            bigram = self.param("bigram", nn.initializers.zeros, shape)
            asked = tokens if positions is None else jnp.take_along_axis(tokens, positions, axis=1)
            logits = logits + jnp.asarray(bigram)[asked]
        return Output(logits=logits, captured=captured)


def _init_stack(
    key: jax.Array, block: Block, x: jax.Array, position_embedding: jax.Array | None
) -> Any:
    if position_embedding is not None:
        position_embedding = position_embedding[:1, :1]

    def init(layer_key: jax.Array) -> Any:
        return block.init(layer_key, x, position_embedding, {}, {})["params"]

    return jax.vmap(init)(jax.random.split(key, block.config.num_layers))


def init_params(key: jax.Array, config: TransformerConfig) -> Params:
    """Random float32 parameters: {name: array}, with those of all layers stacked under `layers`.

    Examples:
      >>> import jax
      >>> config = cj.TransformerConfig(2, 8, 2, 4, 16, vocab_size=10, context_length=6)
      >>> sorted(cj.init_params(jax.random.key(0), config))[:2]
      ['embed', 'final_norm_scale']
    """
    tokens = jnp.zeros((1, 1), jnp.int32)
    return Transformer(config).init(key, tokens)["params"]


def apply(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    gates: Gates | None = None,
    fills: Fills | None = None,
    *,
    positions: jax.Array | None = None,
    capture: Sequence[str] = (),
    norms: Norms | None = None,
    layout: Layout | None = None,
    added: Fills | None = None,
) -> Output:
    """Runs the model.

    Args:
      config: static description.
      params: as from `init_params`.
      tokens: int32 `[B, T]`, T <= context_length. Padding on the right is harmless if causal.
      gates: {site: `[L, W]`} of values in [0, 1]; None or an absent site is open.
      fills: {site: `[L, W]` or `[L, B, T, W]`} replacements of what is closed; absent means zero.
      positions: int32 `[B, P]`: compute logits only there. Exact, and cheaper: the last layer is
        worked out for those positions alone (unless something is captured).
      capture: names from `config.sites` or `CAPTURABLE`. Nodes are recorded after AbsTopK, before
        the gate.
      norms: factors of norms to freeze: `attn` and `mlp` `[L, B, T, 1]`, `final` `[B, T, 1]`, as
        `norm_factors` of another run gives them; an absent one is worked out as usual.
      layout: where tokens stand, if a row of tokens is more than one prompt.
      added: {site: `[L, B, T, W]`} for sites that a linear map leads to: added to what it gives.

    Raises:
      ValueError: an unknown site or capture name, a gate or fill of another shape, tokens that are
        not `[B, T]`, more of them than the context length, or ids that the model does not have.

    Examples:
      >>> output = cj.apply(model.config, model.params, problem.test.tokens[:2, 0])
      >>> output.logits.shape[-1] == model.config.vocab_size
      True
    """
    sites = config.sites
    capturable = tuple(dict.fromkeys((*sites, *CAPTURABLE)))
    mapped = tuple(family.target for family in config.families)
    named = (gates or {}, sites), (fills or {}, sites), (capture, capturable), (added or {}, mapped)
    for name, known in named:
        unknown = sorted(set(name) - set(known))
        if unknown:
            raise ValueError(f"unknown site {unknown[0]!r}; choose from {known}")
    for name, tree, ranks in (("gate", gates, (2,)), ("fill", fills, (2, 4))):
        for site, value in (tree or {}).items():
            found, fits = jnp.shape(value), (config.num_layers, config.width(site))
            if len(found) not in ranks or (found[0], found[-1]) != fits:
                raise ValueError(f"the {name} of {site} is shaped {found}; it must be {fits}")
    check_tokens(config, tokens, positions, longer=layout is not None)
    variables = {"params": params}
    output = Transformer(config).apply(
        variables,
        tokens,
        gates,
        fills,
        positions=positions,
        capture=tuple(capture),
        norms=norms,
        layout=layout,
        added=added,
    )
    assert isinstance(output, Output)  # Flax types it more widely
    return output
