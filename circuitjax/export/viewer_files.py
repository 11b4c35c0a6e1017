"""A circuit in the input format of the viewer released with openai/circuit_sparsity.

    viz/{model}/{task}/{sweep}/k_optim/viz_data.pt    the circuit, its samples and ablations
    models/{model}/final_model.pt                     token and position embedding

Both are PyTorch files of tensors and plain values, read by `torch.load(weights_only=True)`. PyTorch is
needed for writing them, and only for that (`pip install 'circuitjax[torch]'`).

The viewer halves most losses, because the authors store the sum over a pair's two prompts, and takes
what it then calls baselines off; what is stored here is such that it shows

    loss before and after pruning     mean task loss in nats, calibrated as the circuit is
    a node's, a block's importance    that loss with it replaced, minus the circuit's

It decodes tokens by tiktoken's encoding named in the model's description. For released models that is
`tinypython_2k`; for others an encoding of the model's name has to be registered with tiktoken.
"""

import io
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from circuitjax.circuit.activations import circuit_activations, kept_channels, node_activations
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.protocol import View
from circuitjax.model.bounds import check_tokens
from circuitjax.model.config import RESIDUAL_SITES, SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import Params
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import Problem, batches_of

__all__ = ["model_description", "require_torch", "viewer_data", "viewer_files"]

_FRACTIONS = (0.001, 0.01, 0.1, 0.5)
_SAMPLES = 5  # per fraction and end; the viewer shows as many
_CONTEXTS = 256  # prompts that samples are drawn from where no text is given
_SHOWN = 16  # pairs whose activations are shown
_SCORED = 64  # pairs of the ablations
_PLACES, _WIDTH = 1024, 256  # the least that the viewer's page of embeddings can show
_LOCATIONS = {
    "attn.act_in": "attn_in",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.resid_delta": "attn_out",
    "mlp.act_in": "mlp_in",
    "mlp.post_act": "mlp_neuron",
    "mlp.resid_delta": "mlp_out",
    "resid.post_attn": "resid_post_attn",
    "resid.post_mlp": "resid_post_mlp",
}


def require_torch() -> ModuleType:
    """PyTorch.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ValueError(
            "the viewer's format is PyTorch's, which is not installed: pip install 'circuitjax[torch]'"
        ) from None
    return torch


def model_description(model: Model) -> dict[str, Any]:
    """The model's configuration in the released models' terms (their `beeg_config.json`)."""
    config = model.config
    sites = [_LOCATIONS[site] for site in (*SITES, *RESIDUAL_SITES)]
    acting = [_LOCATIONS[site] for site in config.abs_top_k_sites]
    return {
        "block_size": config.context_length,
        "vocab_size": config.vocab_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "d_head": config.d_head,
        "d_model": config.d_model,
        "d_mlp": config.d_mlp,
        "bias": config.biases,
        "ln_bias": config.norm_bias,
        "rms_norm": config.norm == "rms",
        "residual_activation_type": config.residual_activation,
        "activation_type": "relu" if config.activation == "relu" else "gelu",
        "afrac": config.abs_top_k_fraction,
        "afrac_loctypes": ",".join(sorted(acting, key=sites.index)),
        "tied_unembed": config.tied_unembedding,
        "enable_bigram_table": config.bigram,
        "d_pos_emb": config.d_position or None,
        "sink": config.attention_sinks,
        "tokenizer_name": str(model.provenance.get("tokenizer_name", model.name)),
    }


def viewer_data(
    circuit: Circuit, model: Model, problem: Problem, contexts: np.ndarray | None = None
) -> dict[str, Any]:
    """What `viz_data.pt` holds: PyTorch tensors and plain values.

    Args:
      circuit: of nodes or weights, whose closed parts hold constants.
      model: the circuit's own.
      problem: the model's, with the circuit's task; losses and prompts are of its test set. Of tasks
        without pairs the corrupted prompts are shown as the other class.
      contexts: int `[R, T]` of real tokens that each node's strongest and weakest contexts are taken
        from, such as pretraining text; None takes them from the task's training prompts.

    Raises:
      ValueError: another model's, contexts of tokens it does not have, or no PyTorch.
    """
    torch = require_torch()
    view = circuit.parts(model)["nodes"]
    gated: Any = view.model
    config, params = gated.config, gated.params
    kept = kept_channels(config, gated.tree(view.gates))
    losses = _losses(circuit, problem, view)
    if contexts is None:
        some = problem.train.first(_CONTEXTS // 2).as_pairs()
        rows = np.asarray(some.tokens)[:, 0]
        real = np.arange(rows.shape[1]) <= np.asarray(some.positions)[:, -1:]
    else:
        rows, real = _checked(config, contexts), np.ones(np.shape(contexts), bool)
    seen = node_activations(model.config, model.params, rows, kept)
    shown = problem.test.first(_SHOWN).as_pairs()
    # Sorted by class: every positive prompt, then every negative one.
    order = np.arange(shown.size).reshape(-1, 2).T.reshape(-1)
    prompts, last = np.asarray(shown.tokens)[order, 0], np.asarray(shown.positions)[order, -1:]
    inside = np.arange(prompts.shape[1]) <= last
    found = circuit_activations(view, shown, kept)
    on_task = {site: acts[:, order] for site, acts in found.items()}
    return {
        "circuit_data": {
            site: torch.tensor(channels.astype(np.int64)) for site, channels in kept.items()
        },
        "num_total_nodes": config.num_nodes,
        "all_loss": [(0, losses["circuit"])],
        "prune_config": dict(circuit.provenance),
        "samples": {
            site: {
                int(channel): _samples(rows, real, seen[site][index])
                for index, channel in enumerate(channels)
            }
            for site, channels in kept.items()
        },
        "importances": {
            "beeg_model_config": model_description(model),
            "loss": 2 * losses["model"],
            "interv_loss": 2 * losses["circuit"],
            "ch_interv_losses": {
                site: [2 * (losses[site, int(c)] + losses["circuit"]) for c in channels]
                for site, channels in kept.items()
            },
            "layer_interv_losses": {
                f"{layer}.{block}": losses[f"{layer}.{block}"]
                for layer in range(config.num_layers)
                for block in ("attn", "mlp")
            },
            "pair_data": _pairs_of_sites(config, params, kept),
            "pair_data_connections": {},
            "task_samples": (
                torch.tensor(np.where(inside, prompts, 0).astype(np.int64)),
                {
                    site: {
                        int(channel): torch.tensor(np.where(inside, on_task[site][index], 0))
                        for index, channel in enumerate(channels)
                    }
                    for site, channels in kept.items()
                },
            ),
        },
    }


def _checked(config: TransformerConfig, contexts: np.ndarray) -> np.ndarray:
    rows = np.asarray(contexts)
    fits = rows.ndim == 2 and 0 < rows.shape[1] <= config.context_length and rows.size
    if not (fits and np.issubdtype(rows.dtype, np.integer)):
        raise ValueError(
            f"contexts are {rows.dtype}{list(rows.shape)}; they must be whole numbers [R, T] with T "
            f"up to {config.context_length}"
        )
    check_tokens(config, rows)
    return rows


def _losses(circuit: Circuit, problem: Problem, view: View) -> dict[Any, float]:
    """Mean task loss in nats of the model, the circuit, and the circuit without each node or block."""
    examples = problem.test.first(_SCORED)
    gated: Any = view.model
    mask = gated.tree(view.gates)
    names: list[Any] = ["circuit"]
    masks = [mask]
    for layer in range(circuit.config.num_layers):
        for site in SITES:
            for channel in np.flatnonzero(mask[site][layer]):
                names.append((f"{layer}.{site}", int(channel)))
                masks.append({**mask, site: _closed(mask[site], layer, int(channel))})
        for block in ("attn", "mlp"):
            names.append(f"{layer}.{block}")
            masks.append(
                {
                    site: _closed(m, layer, slice(None)) if site.startswith(block) else m
                    for site, m in mask.items()
                }
            )
    rows = np.stack([gated.flat(one) for one in masks])
    odds = answers(gated, batches_of(gated), examples, rows).odds
    if examples.paired:
        odds = calibrated_odds(odds, circuit.scale, circuit.shift)
    losses = dict(zip(names, mean_task_loss(odds).tolist(), strict=True))
    everything = np.ones((1, problem.whole.num_gates), bool)
    whole = answers(problem.whole, problem.batches, examples, everything).odds
    return losses | {"model": float(mean_task_loss(whole)[0])}


def _closed(mask: np.ndarray, layer: int, channels: int | slice) -> np.ndarray:
    closed = mask.copy()
    closed[layer, channels] = 0
    return closed


def _samples(rows: np.ndarray, real: np.ndarray, acts: np.ndarray) -> dict[float, Any]:
    """{fraction: (lowest, highest)}: contexts around that quantile from either end.

    Args:
      rows: int `[R, T]`.
      real: bool `[R, T]`, tokens that are no padding.
      acts: `[R, T]` of one node.
    """
    torch = require_torch()
    places = np.flatnonzero(real)
    order = places[np.argsort(acts.reshape(-1)[places], kind="stable")]
    width = rows.shape[1]
    chosen = {}
    for share in _FRACTIONS:
        start = min(int(share * len(order)), max(len(order) - _SAMPLES, 0))
        chosen[share] = tuple(end[start : start + _SAMPLES] for end in (order, order[::-1]))
    # Views of two tensors, which a file holds once, with the rows that are used and no others.
    used = np.unique(np.concatenate([ends for both in chosen.values() for ends in both]) // width)
    tokens, values = torch.tensor(rows[used].astype(np.int64)), torch.tensor(acts[used])

    def context(place: int) -> tuple[Any, Any, int]:
        row = int(np.searchsorted(used, place // width))
        return tokens[row], values[row], place % width

    return {
        share: tuple([context(int(place)) for place in ends] for ends in both)
        for share, both in chosen.items()
    }


def _pairs_of_sites(
    config: TransformerConfig, params: Params, kept: Mapping[str, np.ndarray]
) -> list[list[Any]]:
    """[weights `[src + 1, tgt]` with the bias last, source ids, target ids, (source, target)]."""
    torch = require_torch()
    found = []
    for layer in range(config.num_layers):
        for family in config.families:
            source, target = f"{layer}.{family.source}", f"{layer}.{family.target}"
            kernel = np.asarray(params["layers"][family.kernel][layer], np.float32)
            weights = kernel[np.ix_(kept[source], kept[target])]
            bias = np.zeros(weights.shape[1], np.float32)
            # The viewer cannot draw a bias into the attention's write, so there it is left out.
            if config.biases and family.target != "attn.resid_delta":
                bias = np.asarray(params["layers"][f"{family.kernel}_bias"][layer], np.float32)
                bias = bias[kept[target]]
            ids = ([*kept[source].tolist(), "bias"], kept[target].tolist())
            joined = torch.tensor(np.concatenate([weights, bias[None]]))
            found.append([joined, *ids, (source, target)])
    return found


def viewer_files(data: dict[str, Any], model: Model) -> tuple[bytes, bytes]:
    """`viz_data.pt` and `final_model.pt` as bytes.

    Args:
      data: of `viewer_data`.
      model: its embeddings are padded with zeros to the least size that the viewer shows.

    Raises:
      ValueError: PyTorch is not installed.
    """
    torch = require_torch()
    width = max(model.config.d_model, _WIDTH)
    parts = {"wte": np.asarray(model.params["embed"], np.float32)}
    parts["wpe"] = np.asarray(model.params.get("positions", np.zeros((1, 1))), np.float32)
    state = {}
    for name, rows in parts.items():
        least = _PLACES if name == "wpe" else 0
        padded = np.zeros((max(len(rows), least), max(rows.shape[1], width)), np.float32)
        padded[: len(rows), : rows.shape[1]] = rows
        # The viewer asserts this many positions, no more.
        state[f"transformer.{name}.weight"] = torch.tensor(padded[: least or None])
    files = []
    for content in (data, state):
        file = io.BytesIO()
        torch.save(content, file)
        files.append(file.getvalue())
    return files[0], files[1]
