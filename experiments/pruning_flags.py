"""The flags of a pruning run, and the run they describe: shared by `prune`, `suite` and `tune`.

What a flag leaves out is taken from the preset, if one is named, then from `prune.defaults`. Which
choices go together is said in `prune.capabilities` alone.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.conditions import CONDITIONS
from circuitjax.model.record import Model
from circuitjax.prune.capabilities import answers, refuse_unused
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import PRESETS, Search, default_hyper, default_jobs, default_search
from circuitjax.prune.rank import Baseline
from circuitjax.prune.train import Job
from circuitjax.run.search import PruneRun, gates_of
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from experiments.limits import MOST_JOBS, check_numbers

__all__ = [
    "CHOICES",
    "build_run",
    "build_search",
    "chosen_values",
    "refuse_hypers",
    "suffix",
]

#: Answers to the questions that flags ask.
CHOICES = answers()
_TEXTS = {
    "grain": "Where gates sit. Default: nodes.",
    "gate": "How gates open. Default: heaviside; hard_concrete for edges, but of large networks.",
    "ablation": "What is closed holds: its mean, zero, what it held on another prompt of the "
    "batch, or on the corrupted prompt. Default: mean; interchange for edges.",
    "minimise": "What training minimises: the task loss, KL(model || circuit), or both, the KL "
    "times --kl_weight. Default: task; kl for edges.",
    "control": "What keeps gates closed: k_coef per open gate, a target sparsity, or a k_coef "
    "that adapts until the loss (or KL) is at a fraction of its target. Default: hold for nodes "
    "and weights (and large networks' edges), count for Heaviside edges, lagrangian for hard-concrete "
    "ones.",
    "loss": "Task loss between the completions, or over the whole vocabulary. Default: binary.",
    "ranking": "How gates are ranked before the smallest circuit is cut: by what was learned or, "
    "without training, by gradient attribution (eap is its name on edges), its integrated forms, "
    "a corrected gradient (gim), the curvature of the KL (fisher), elimination from the whole model on "
    "by what closing adds to the KL (eliminated), variance of the activations (nodes), at random. "
    "Default: learned; eliminated for a KL of large networks' edges.",
    "sign": "Rankings by gradients: by size, as they are, or what helps alone. Default: absolute.",
    "attribute_to": "What these gradients are of: the task loss, or the log odds of the right "
    "answer (a difference of logits). Default: loss.",
    "units": "Nodes and edges: what a gate opens: a channel (of edges, the finest: q, k and v read "
    "apart), a head or MLP, or a layer's whole attention or MLP. Default: channel.",
    "coarse": "Nodes and edges: gates on heads or blocks besides, learned together: a part is open "
    "where both gates are. Default: none.",
    "warm_start": "A ranking that learned gates start from. Default: none; of large networks' "
    "edges fisher.",
}
_CHOICES = {
    name: flags.DEFINE_enum(name, None, list(CHOICES[name]), text) for name, text in _TEXTS.items()
}
flags.DEFINE_alias("method", "grain")

_NUMBERS = {
    "target_loss": "Task loss to reach, in nats. Default: 0.15.",
    "target_kl": "KL(model || circuit) to reach instead, in nats; with --hold_under and "
    "--target_loss, beside it.",
    "confidence": "Demands that the upper bound of the validation loss (or KL) meets the target with "
    "this confidence, in (0, 1). Default: its mean does.",
}
_WHOLE = {
    "target_edges": "Keep at most so many edges instead of reaching a loss.",
    "target_nodes": "Keep at most so many nodes instead.",
    "steps": "Training steps. Default: 300; 100 for nodes with --control=count; 150 for large "
    "networks' edges.",
    "batch_size": "Pairs per step, two prompts each (default: 16; 32 for weights), or examples of "
    "a contrast task.",
    "train_pairs": "Training pairs, or examples of a contrast task. Default: 4096; 2048 for edges.",
    "validation_pairs": "Validation pairs, or examples, that the circuit is chosen on. Default: "
    "1024; 256 for edges.",
    "test_pairs": "Test pairs, or examples, that figures are of. Default: 512; 256 for edges.",
}
_HYPER = {
    "k_coef": "Nats per open gate. Default: several multiples of a value that suits the number of "
    "gates (18 / nodes; 0.04 weights^-0.4; 0.01 for edges), the best one wins; with "
    "--control=hold, which moves it, where it starts.",
    "init_noise_scale": "Standard deviation of the initial gate parameters. Default: 0.01, but "
    "0.15 for Heaviside gates, but for nodes with --control=count.",
    "init_noise_bias": "Mean of the initial gate parameters, in [-15, 15]. Default: 0.3 "
    "(nodes with --control=count: 0.1); hard concrete 1, and 2 for edges.",
    "wd": "Decoupled weight decay per unit learning rate. Default: 0.001 (0.01 hard-concrete "
    "edges).",
    "lr": "Peak learning rate. Default: 0.01, 0.02 for Heaviside edges; hard concrete 0.2, 0.3 "
    "for edges.",
    "inv_beta2": "1 - beta2 of Adam, in [1e-6, 1]. Default: 0.05 (0.01 hard-concrete edges).",
    "lr_warmup_frac": "Fraction of the steps spent warming up, in [0, 1). Default: 0.",
    "heaviside_temp": "Temperature of the surrogate gradient, above 0. Default: 1.",
    "target_sparsity": "Fraction of gates to close, in [0, 1), with --control=lagrangian. "
    "Default: several, by grain; the best job wins.",
    "target_warmup_frac": "Fraction of the steps over which the target sparsity rises. Default: "
    "0.7.",
    "multiplier_lr": "Step size of the Lagrange multipliers' ascent. Default: 0.3.",
    "aim": "Fraction of the target at which hold keeps the loss, in (0, 1]. Default: 0.5; nodes 0.7; "
    "edges without elimination 0.8.",
    "kl_weight": "Weight of the KL with --minimise=both. Default: 1.",
}
_SETTINGS = {
    **{name: flags.DEFINE_float(name, None, text) for name, text in _NUMBERS.items()},
    **{name: flags.DEFINE_integer(name, None, text) for name, text in _WHOLE.items()},
    "threshold": flags.DEFINE_enum(
        "threshold",
        None,
        ["target", "match_soft"],
        "Cut at the target, or keep as many gates as training expects to be open.",
    ),
    "calibrate": flags.DEFINE_enum(
        "calibrate",
        None,
        ["inside", "after", "off"],
        "Fit logit scale and shift at every k (inside, the default), at the chosen k (after), or "
        "never (off).",
    ),
    "train_under": flags.DEFINE_string(
        "train_under",
        None,
        "Conditions of training with their shares of a step, instead of --ablation: mean:2,resample:1. "
        f"Of {', '.join(CONDITIONS)}.",
    ),
    "hold_under": flags.DEFINE_string(
        "hold_under",
        None,
        "Conditions that the cut demands the target under, with one calibration: mean,resample.",
    ),
    "selection": flags.DEFINE_enum(
        "selection",
        None,
        ["top", "greedy"],
        "Edges: take the best-ranked first (top, the default), or from the logits backwards, so "
        "that what is taken is connected.",
    ),
    "eliminate": flags.DEFINE_bool(
        "eliminate",
        None,
        "Rank what training left open anew by backward elimination before the cut. Default: where the "
        "target is a loss or a KL, but not of large networks' edges.",
    ),
    "tie_qk": flags.DEFINE_bool("tie_qk", None, "One gate for a q channel and its k channel."),
    "node_gates": flags.DEFINE_bool(
        "node_gates",
        None,
        "Weights and edges: gates on nodes (writers) too. Default: only with hard-concrete edges.",
    ),
}
_HYPERS = {name: flags.DEFINE_float(name, None, text) for name, text in _HYPER.items()}
flags.DEFINE_alias("init", "init_noise_bias")
_PRESET = flags.DEFINE_enum(
    "preset",
    None,
    list(PRESETS),
    "Defaults as in a paper; faithful: a circuit that holds under resampling and within supersets.",
)
_SEED = flags.DEFINE_integer("seed", 0, "First seed of gates and batches.")
_SEEDS = flags.DEFINE_integer("num_seeds", 1, "Seeds run as jobs of one program; the best wins.")
_JOBS = flags.DEFINE_integer(
    "num_jobs",
    None,
    "Settings tried side by side per seed: target sparsities with --control=lagrangian, else "
    "multiples of k_coef. Default: several where that helps. In a study: runs of a round (8).",
)
_START = flags.DEFINE_string(
    "start", None, "Grain weights: directory of a circuit of nodes to prune further."
)
_ALL = {**_CHOICES, **_SETTINGS, **_HYPERS}
_AIMS = ("target_loss", "target_kl", "target_edges", "target_nodes")
# Flags whose setting has another name.
_RENAMED = {
    "node_gates": "owners",
    "selection": "order",
    "train_pairs": "train",
    "validation_pairs": "validation",
    "test_pairs": "test",
}


def chosen_values() -> dict[str, Any]:
    """What the flags, a preset and the defaults say of all that `build_run` lets its caller choose.

    The target is None where it is no task loss.
    """
    given = _given({})
    aims = [name for name in _AIMS[1:] if given.get(name) is not None]
    aims += ["threshold"] if given.get("threshold") == "match_soft" else []
    target = given.get("target_loss", None if aims else 0.15)
    return {
        "grain": given.get("grain", "nodes"),
        "ranking": given.get("ranking", "learned"),
        "target_loss": target,
        "seed": _SEED.value,
    }


def suffix() -> str:
    """What tells runs of a grain and ranking from learned nodes' in a directory's name."""
    chosen = chosen_values()
    words = [] if chosen["grain"] == "nodes" else [chosen["grain"]]
    words += [] if chosen["ranking"] == "learned" else [chosen["ranking"]]
    return "".join(f"-{word}" for word in words)


def refuse_hypers(why: str, *, jobs: bool = True) -> None:
    """Refuses flags that say which settings are tried, where something else does.

    Args:
      why: end of the message.
      jobs: whether --num_jobs is one of them.

    Raises:
      ValueError: one was given.
    """
    for flag in (*_HYPERS.values(), *([_JOBS] if jobs else [])):
        if flag.value is not None:
            raise ValueError(f"--{flag.name} has no meaning {why}: leave it out")


def _given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, what a caller chose instead, and a preset's defaults for the rest."""
    given = {name: flag.value for name, flag in _ALL.items()} | dict(chosen)
    given = {name: value for name, value in given.items() if value is not None}
    preset = dict(PRESETS.get(_PRESET.value or "", {}))
    grain = given.get("grain")
    if preset and grain not in (None, preset["grain"]):
        raise ValueError(
            f"--preset={_PRESET.value} is of grain {preset['grain']}, not {grain}: leave one of them out"
        )
    if any(name in given for name in _AIMS):
        preset.pop("threshold", None)
    return preset | given


def build_search(
    model: Model, task: Task | ContrastTask, chosen: Mapping[str, Any] | None = None
) -> tuple[Search, dict[str, float]]:
    """The search that the flags describe, and the hyperparameters that are given.

    Args:
      model: whose size decides how large sets are where none is given.
      task: of either kind.
      chosen: values instead of the flags'; flags that only training reads are then passed over by
        rankings without training.

    Raises:
      ValueError: a value out of its limits, or a setting that does nothing.
    """
    given = _given(chosen or {})
    check_numbers(_SETTINGS["target_edges"], _SETTINGS["target_nodes"])
    hypers = {name: given.pop(name) for name in _HYPERS if name in given}
    given.pop("seed", None)
    settings = {_RENAMED.get(name, name): value for name, value in given.items()}
    learned = settings.get("ranking", "learned") == "learned"
    grain = settings.pop("grain", "nodes")
    paired = isinstance(task, Task)
    search = default_search(grain, paired=paired, config=model.config, **settings)
    if learned or not chosen:
        asked = [
            name for name, flag in {**_ALL, "num_jobs": _JOBS}.items() if flag.value is not None
        ]
        refuse_unused(search.choices, asked)
    return search, hypers if learned else {}


def _side_by_side(search: Search, centre: float, given: Mapping[str, float]) -> Sequence[Any]:
    """What --num_jobs varies: the target sparsity of a Lagrangian, else k_coef around `centre`."""
    held = search.choices.control == "lagrangian"
    name, count = "target_sparsity" if held else "k_coef", _JOBS.value
    if count is None or name in given:
        return [{}]
    if not held:
        multiples = np.geomspace(0.25, 2.0, count) if count > 1 else [1.0]
        return [{name: centre * float(multiple)} for multiple in multiples]
    retained = np.geomspace(0.3, 0.01, count) if count > 1 else [0.05]
    return [{name: float(1 - share)} for share in retained]


def build_run(
    model: Model,
    task: Task | ContrastTask,
    out: pathlib.Path,
    *,
    chosen: Mapping[str, Any] | None = None,
    start: pathlib.Path | None = None,
) -> PruneRun:
    """The run that the flags describe.

    Args:
      model, task: loaded.
      out: its directory.
      chosen: values of grain, ranking, target_loss and seed instead of the flags', see `build_search`.
      start: directory of a circuit of nodes, instead of --start.

    Raises:
      ValueError: a value out of its limits, a combination that cannot be, a setting that does nothing.
    """
    seed = int((chosen or {}).get("seed", _SEED.value))
    if not 0 <= seed < 2**32 - MOST_JOBS:
        limit = "at least 0" if seed < 0 else f"below 2^32 - {MOST_JOBS}"
        raise ValueError(f"--seed={seed} must be {limit}")
    check_numbers(_SEEDS, _JOBS, most=MOST_JOBS)
    seeds = range(seed, seed + _SEEDS.value)
    search, given = build_search(model, task, chosen)
    place = start or _START.value
    circuit = None if place is None else Circuit.load(place)
    ranking = search.choices.ranking
    if ranking != "learned":
        if len(seeds) > 1 and ranking != "random":
            raise ValueError(
                f"--num_seeds={len(seeds)} has no meaning with ranking={ranking}, which is the same "
                "for every seed: leave it out"
            )
        jobs = [Job(one, Baseline.of(search.choices)) for one in seeds]
    else:
        Hyper(**given).check()
        count = gates_of(model, search, circuit)
        centre = float(default_hyper(search, count).k_coef)
        jobs = [
            job
            for setting in _side_by_side(search, centre, given)
            for job in default_jobs(
                search, count, seeds, started=circuit is not None, **given | setting
            )
        ]
    return PruneRun(model, task, search, jobs, out, circuit)
