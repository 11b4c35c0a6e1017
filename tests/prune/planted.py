"""A task that seven nodes of a small model do, by hand, among random weak distractors.

    A or B (channel 0 is +1 or -1) -> v of head 0 -> channel 1 -> two neurons (+ and -) -> channel 2

Every pattern is uniform (queries and keys are zero), there are no norms, and the unembedding reads
the answer `x` or `y` off channel 2.
"""

import functools
import itertools
import json

import jax
import numpy as np
import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params
from circuitjax.prune.defaults import Search, default_search
from circuitjax.prune.find import prepare
from circuitjax.prune.problem import Problem
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.tokenizer import BOS

LETTERS = "abcdefghijklmnop"
VOCABULARY = [BOS, "A", "B", "-", "x", "y", *[c for c in LETTERS if c not in "xy"]]
PLANTED = (
    "0.attn.act_in.0",
    "0.attn.v.h0.c0",
    "0.attn.resid_delta.1",
    "1.mlp.act_in.1",
    "1.mlp.post_act.0",
    "1.mlp.post_act.1",
    "1.mlp.resid_delta.2",
)
CONFIG = TransformerConfig(
    num_layers=2,
    d_model=16,
    num_heads=2,
    d_head=8,
    d_mlp=32,
    vocab_size=len(VOCABULARY),
    context_length=8,
    norm="none",
    activation="relu",
    position="none",
)
SEARCH = default_search(
    "nodes",
    control="count",
    ablation="zero",
    steps=60,
    batch_size=16,
    train=64,
    validation=24,
    test=40,
    chunk=20,
)


def tokenizer_json() -> str:
    """One token per character."""
    table = {token: index for index, token in enumerate(VOCABULARY)}
    made = tokenizers.Tokenizer(models.WordLevel(table, unk_token=BOS))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made.add_special_tokens([BOS])
    return str(made.to_str())


@functools.lru_cache(maxsize=2)
def planted_model(answer: float = 4.0, name: str = "planted") -> Model:
    """The model; right minus wrong logit is about `answer`."""
    rng = np.random.default_rng(3)
    shaped = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shaped))
    embed, stack, unembed = params["embed"], params["layers"], params["unembed"]
    embed[6:, 4:] = rng.normal(0, 0.3, (len(VOCABULARY) - 6, 12))
    embed[1, 0], embed[2, 0] = 1, -1
    for kernel in ("attn_v", "attn_out", "mlp_in", "mlp_out"):
        inputs, outputs = stack[kernel].shape[1:]
        stack[kernel][:, 4 % inputs :, 4 % outputs :] = rng.normal(
            0, 0.1, (2, inputs - 4, outputs - 4)
        )
    stack["attn_v"][0, 0, 0] = 6.0  # the mean of six positions
    stack["attn_out"][0, 0, 1] = 1.0
    stack["mlp_in"][1, 1, :2] = 1.0, -1.0
    stack["mlp_out"][1, :2, 2] = 1.0, -1.0
    unembed[2, 4], unembed[2, 5] = answer / 2, -answer / 2
    unembed[4:, 4:6] = rng.normal(0, 0.05, (12, 2))
    means = {site: np.zeros(shape, np.float32) for site, shape in shapes(CONFIG).items()}
    return Model(name, CONFIG, params, tokenizer_json(), means)


def _sample(rng) -> Pair:
    noise = "".join(rng.choice(LETTERS) for _ in range(3))
    return Pair(f"A-{noise}", f"B-{noise}", "x", "y")


def jsonl_of_pairs() -> str:
    """125 pairs of the task as the lines of a file."""
    ends = {"positive_completion": "x", "negative_completion": "y"}
    texts = map("".join, itertools.product(LETTERS[:5], repeat=3))
    return "\n".join(
        json.dumps({"positive": f"A-{t}", "negative": f"B-{t}", **ends}) for t in texts
    )


TASK = Task("first_letter", "the first letter decides", samplers=(_sample,))


@functools.lru_cache(maxsize=8)
def planted_problem(search: Search = SEARCH) -> Problem:
    """The task on the model."""
    return prepare(planted_model(), TASK, search)
