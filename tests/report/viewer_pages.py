"""Pages of made-up circuits for the viewer's tests: a planted one, a large one, hostile ones."""

import functools
from typing import Any

import jax
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.graph import edge_masks
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params
from circuitjax.report.viewer.collect import page_data
from circuitjax.report.viewer.texts import Contexts
from tests.audit.planted_audit import mask_of
from tests.prune.planted import CONFIG, PLANTED, planted_model, planted_problem, tokenizer_json

# A few nodes that do nothing, among them a query and a key, so that every site is there.
EXTRA = ("0.attn.q.h1.c2", "0.attn.k.h1.c2", "0.attn.act_in.5", "1.mlp.act_in.5")
LARGE = TransformerConfig(
    num_layers=4,
    d_model=128,
    num_heads=8,
    d_head=8,
    d_mlp=256,
    vocab_size=CONFIG.vocab_size,
    context_length=16,
)


def planted_circuit(names=(*PLANTED, *EXTRA), **changes: Any) -> Circuit:
    model = planted_model()
    facts = {"task": "first_letter", "chosen": {"seed": 0, "k_coef": 0.01}}
    fields = {"provenance": facts, "held": model.means, **changes}
    return Circuit.of(model, "nodes", {"mask": mask_of(names)}, **fields)


def point(k, raw, loss, kl=None) -> dict[str, Any]:
    return {"k": k, "parts": k, "raw": raw, "loss": loss, "kl": kl, "items": 24}


def check(name, figure, threshold, passed, at_most=True) -> dict[str, Any]:
    fields = {"group": "task", "name": name, "figure": figure, "threshold": threshold}
    return {**fields, "at_most": at_most, "unit": "", "note": "", "passed": passed}


REPORT = {
    "status": "reached",
    "grain": "nodes",
    "target": "loss",
    "target_value": 0.15,
    "loss_unpruned": 0.02,
    "loss_circuit": 0.1,
    "jobs": [
        {
            "seed": 0,
            "hyper": {"k_coef": 0.01},
            "reached": True,
            "k": 7,
            "curve": [point(0, 0.7, 0.69), point(7, 0.2, 0.1), point(500, 0.02, 0.02)],
        },
        {"seed": 1, "hyper": {}, "reached": False, "k": 9, "curve": [point(1, 0.7, 0.6)]},
    ],
}
AUDIT = {
    "checks": [
        check("sufficiency", 0.1, 0.15, True),
        check("necessity", 0.4, 0.95, False, at_most=False),
    ]
}


@functools.cache
def planted_data() -> dict[str, Any]:
    return page_data(
        planted_circuit(), planted_model(), planted_problem(), report=REPORT, audit=AUDIT
    )


@functools.cache
def large_data(edges: int = 5000) -> dict[str, Any]:
    """A random circuit of exactly so many edges, with made-up effects and contexts."""
    rng = np.random.default_rng(5)
    shaped = jax.eval_shape(lambda: init_params(jax.random.key(0), LARGE))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shaped)
    layers = params["layers"]
    for kernel in layers.values():
        if kernel.ndim == 3:
            kernel *= rng.random(kernel.shape) < 0.08
    mask = {site: rng.random(shape) < 0.6 for site, shape in shapes(LARGE).items()}
    # Weights beyond the number that is wanted are zero.
    joined = edge_masks(LARGE, params, mask)
    names = {"act_in->q": "attn_q", "act_in->k": "attn_k", "act_in->v": "attn_v"}
    names |= {"v->resid_delta": "attn_out"}
    names |= {"act_in->post_act": "mlp_in", "post_act->resid_delta": "mlp_out"}
    places = [(f, *at) for f, found in joined.items() for at in np.argwhere(found).tolist()]
    assert len(places) >= edges, len(places)
    for index in rng.permutation(len(places))[edges:]:
        family, *at = places[index]
        layers[names[family]][tuple(at)] = 0
    model = Model("large", LARGE, params, tokenizer_json())
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(LARGE).items()}
    facts = {"task": "made up"}
    circuit = Circuit.of(model, "nodes", {"mask": mask}, held=fills, provenance=facts)
    rows = rng.integers(0, LARGE.vocab_size, (16, 16))
    data = page_data(circuit, model, contexts=Contexts(rows, np.full(16, 16), "random tokens"))
    for node in data["nodes"]:
        node["effect"] = float(np.round(rng.exponential(0.02) * rng.choice([1, 1, 1, -0.2]), 5))
    data["loss"], data["effect_pairs"] = 0.1, 8
    assert len(data["edges"]) == edges
    assert set(SITES) == {node["site"] for node in data["nodes"]}
    return data


HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "\u2028\u2029'\"`${window.hacked = 3}",
    "]]>--><svg onload=window.hacked=4>",
    "&lt;b&gt;\x00\x1b[31m\u202e",
    "{{data}}{{scripts}}</title></style>",
)


def hostile_data() -> dict[str, Any]:
    """The planted page with a hostile text wherever a text can stand."""
    data = dict(planted_data())
    texts = [*HOSTILE, " ".join(HOSTILE)]
    data["tokens"] = {
        key: texts[place % len(texts)] for place, key in enumerate(sorted(data["tokens"]))
    }
    evil = texts[-1]
    data |= {"title": evil, "task": evil, "note": evil, "ablation": evil}
    data["model"] = data["model"] | {"name": evil}
    data["contexts"] = data["contexts"] | {"source": evil}
    data["figures"] = [[evil, evil]]
    data["audit"] = {"columns": ["name", evil], "rows": [[evil, evil]], "passed": [None]}
    data["curve"] = data["curve"] | {"unit": evil}
    data["groups"] = [{"name": evil, "nodes": [data["nodes"][0]["id"]]}]
    counts = {"nodes": [1, 2, 3], "edges": [1, 2, 3], "shared": [0], "missing": [evil]}
    data["compared"] = {"title": evil, "ablation": evil, **counts}
    return data
