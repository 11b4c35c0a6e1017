"""The flags of a pruning run, and the run they describe: shared by `prune` and `suite`.

A preset (see `presets`) sets the defaults of the flags that are not given.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.find import default_jobs
from circuitjax.circuit.find_edges import default_edge_hyper, default_edge_jobs
from circuitjax.circuit.find_weights import default_weight_jobs
from circuitjax.circuit.graph import count_edges, total_edges
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig, default_hyper
from circuitjax.prune.residual import EdgeConfig
from circuitjax.prune.weights import default_weight_hyper
from circuitjax.report.edge_run import EdgeRun
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.weight_run import WeightRun
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from experiments import hyper_flags, ranking_flags
from experiments.hyper_flags import HYPER_FLAGS, ONLY_GATES, ONLY_LAGRANGIAN, ONLY_NODES
from experiments.presets import PRESETS

__all__ = ["aims_otherwise", "build_run", "chosen_method", "chosen_values", "refuse_hypers"]

flags.adopt_module_key_flags(hyper_flags)
flags.adopt_module_key_flags(ranking_flags)

_D, _E = PruneConfig(), EdgeConfig()
# A weight circuit's gates move more slowly than a node circuit's.
_WEIGHT_STEPS, _WEIGHT_BATCH = 300, 32

_PRESET = flags.DEFINE_enum("preset", None, list(PRESETS), "Defaults as in a paper.")
_METHOD = flags.DEFINE_enum(
    "method", None, ["nodes", "weights", "edges"], "Where gates sit. Default: nodes."
)
_TARGET = flags.DEFINE_float("target_loss", None, "Task loss to reach, in nats. Default: 0.15.")
_TARGET_KL = flags.DEFINE_float(
    "target_kl", None, "Method edges: KL(model || circuit) to reach instead, in nats."
)
_TARGET_EDGES = flags.DEFINE_integer(
    "target_edges", None, "Method edges: keep at most so many edges instead of reaching a loss."
)
_SPARSITY = flags.DEFINE_float(
    "target_sparsity",
    None,
    "Fraction of gates to close, in [0, 1), with --control=lagrangian. Default: 0.95 and 0.99 of edges, "
    "0.9 of weights or 0.5 of a circuit's; the best job wins.",
)
_THRESHOLD = flags.DEFINE_enum(
    "threshold",
    None,
    ["target", "match_soft"],
    "Method edges: cut at the target, or keep as many as the soft gates are expected to leave open.",
)
_STEPS = flags.DEFINE_integer(
    "steps",
    None,
    f"Training steps. Default: {_D.steps} for nodes, {_WEIGHT_STEPS} for weights, "
    f"{_E.steps} for edges.",
)
_BATCH = flags.DEFINE_integer(
    "batch_size",
    None,
    f"Pairs per step, two prompts each (default {_D.batch_size}, {_WEIGHT_BATCH} for weights); method "
    f"edges: examples, a clean and a corrupted prompt each (default {_E.batch_size}).",
)
_SEED = flags.DEFINE_integer("seed", 0, "First seed of gates and batches.")
_SEEDS = flags.DEFINE_integer("num_seeds", 1, "Seeds run as jobs of one program; the best wins.")
_JOBS = flags.DEFINE_integer(
    "num_jobs",
    None,
    "Settings tried side by side per seed: target sparsities with --control=lagrangian, else "
    "multiples of k_coef. Default: 8 for nodes, 2 for weights with --control=count and for edges with "
    "--control=lagrangian, else 1.",
)
_ABLATION = flags.DEFINE_enum(
    "ablation",
    None,
    ["mean", "zero", "interchange"],
    "What is closed holds: its mean, zero, or (method edges) the corrupted prompt's value. Default: "
    "mean; interchange for edges.",
)
_GATE = flags.DEFINE_enum(
    "gate",
    None,
    ["heaviside", "hard_concrete"],
    "How gates open. Default: heaviside; hard_concrete for edges. Nodes: heaviside only.",
)
_CONTROL = flags.DEFINE_enum(
    "control",
    None,
    ["count", "lagrangian", "hold"],
    "What keeps gates closed: k_coef per open gate, a target sparsity, or (method weights) a k_coef "
    "that adapts until the loss is at a fraction of its target. Default: count for nodes and Heaviside "
    "edges, hold for weights, lagrangian for hard-concrete edges.",
)
_MINIMISE = flags.DEFINE_enum(
    "minimise", None, ["kl", "task"], "Method edges: what training minimises. Default: kl."
)
_NODE_GATES = flags.DEFINE_bool(
    "node_gates",
    None,
    "Methods weights, edges: gates on nodes (writers) too. Default: only with hard-concrete edges.",
)
_START = flags.DEFINE_string(
    "start", None, "Method weights: directory of a node circuit to prune further."
)
_TIE = flags.DEFINE_bool("tie_qk", _D.tie_qk, "One gate for a q channel and its k channel.")
_CALIBRATE = flags.DEFINE_enum(
    "calibrate",
    None,
    ["inside", "after", "off"],
    "Fit logit scale and shift at every k (inside, the default), at the chosen k (after), or never "
    "(off). Method edges: inside or off.",
)


def chosen_method() -> str:
    """The method asked for, by itself or by a preset.

    Raises:
      ValueError: a preset of another method.
    """
    return str(_Given().get("method", "nodes"))


def chosen_values() -> dict[str, Any]:
    """What the flags, a preset and the defaults say of all that `build_run` lets its caller choose."""
    method = chosen_method()
    return {
        "method": method,
        "ranking": ranking_flags.chosen_ranking(method),
        "target_loss": _D.target_loss if _TARGET.value is None else _TARGET.value,
        "seed": _SEED.value,
    }


def aims_otherwise(method: str) -> bool:
    """Whether the flags give runs of that method another aim than a task loss."""
    if method != "edges" or _TARGET.value is not None:
        return False
    others = (_TARGET_KL.value, _TARGET_EDGES.value)
    return (
        any(other is not None for other in others) or _Given().get("threshold", "") == "match_soft"
    )


def refuse_hypers(why: str) -> None:
    """Refuses flags that say which settings are tried, where something else does.

    Raises:
      ValueError: one was given.
    """
    for flag in (*HYPER_FLAGS.values(), _JOBS):
        if flag.value is not None:
            raise ValueError(f"--{flag.name} has no meaning {why}: leave it out")


class _Given:
    """What the user gave, what a caller chose instead, and a preset's defaults for the rest."""

    def __init__(self, chosen: Mapping[str, Any] | None = None) -> None:
        preset = dict(PRESETS.get(_PRESET.value or "", {}))
        given = {
            "method": _METHOD.value,
            "ablation": _ABLATION.value,
            "calibrate": _CALIBRATE.value,
            "gate": _GATE.value,
            "control": _CONTROL.value,
            "minimise": _MINIMISE.value,
            "threshold": _THRESHOLD.value,
            "steps": _STEPS.value,
            "batch_size": _BATCH.value,
            "target_sparsity": _SPARSITY.value,
            "target_loss": _TARGET.value,
            "seed": _SEED.value,
            **{name: flag.value for name, flag in HYPER_FLAGS.items()},
            **(chosen or {}),
        }
        if given["method"] and "method" in preset and given["method"] != preset["method"]:
            raise ValueError(
                f"--preset={_PRESET.value} is of method {preset['method']}, not {given['method']}: "
                "leave one of them out"
            )
        self.values = preset | {k: v for k, v in given.items() if v is not None}

    def get(self, name: str, default: Any) -> Any:
        return self.values.get(name, default)

    def hypers(self, names: tuple[str, ...]) -> dict[str, float]:
        return {name: self.values[name] for name in names if name in self.values}


def _refuse(method: str, **named: Any) -> None:
    for name, value in named.items():
        if value is not None:
            raise ValueError(f"--{name} has no meaning for --method={method}: leave it out")


def _refuse_unused(gate: str, control: str) -> None:
    """Refuses hyperparameters that were given and would do nothing.

    Raises:
      ValueError: one of another control or gate.
    """
    held = {"target_sparsity": _SPARSITY, **{n: HYPER_FLAGS[n] for n in ONLY_LAGRANGIAN}}
    unused = dict(held) if control != "lagrangian" else {"k_coef": HYPER_FLAGS["k_coef"]}
    if control != "hold":
        unused["aim"] = HYPER_FLAGS["aim"]
    for name, flag in unused.items():
        if flag.value is not None:
            raise ValueError(
                f"--{name} has no meaning with --control={control}: leave it out or choose "
                f"another --control"
            )
    if gate != "heaviside" and HYPER_FLAGS["heaviside_temp"].value is not None:
        raise ValueError(f"--heaviside_temp has no meaning with --gate={gate}: leave it out")


def _side_by_side(control: str, centre: float, changes: dict[str, float]) -> list[dict[str, float]]:
    """What --num_jobs varies: the target sparsity of a Lagrangian, else k_coef around `centre`."""
    count = _JOBS.value
    name = "target_sparsity" if control == "lagrangian" else "k_coef"
    if count is None or name in changes:
        return [{}]
    if control != "lagrangian":
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
) -> PruneRun | WeightRun | EdgeRun:
    """The run that the flags describe.

    Args:
      model, task: loaded.
      out: its directory.
      chosen: values of method, ranking, target_loss and seed instead of the flags'; flags that only
        training reads are then passed over by rankings without training.
      start: directory of a node circuit, instead of --start.

    Raises:
      ValueError: a value out of its limits, or a flag that has no meaning for the method.
    """
    given = _Given(chosen)
    method, seed = given.get("method", "nodes"), given.values["seed"]
    ranking = ranking_flags.chosen_ranking(method, (chosen or {}).get("ranking"))
    if _SEEDS.value < 1 or seed < 0:
        raise ValueError(f"--seed={seed} must be at least 0, --num_seeds={_SEEDS.value} 1")
    if _JOBS.value is not None and _JOBS.value < 1:
        raise ValueError(f"--num_jobs={_JOBS.value} must be at least 1")
    seeds = range(seed, seed + _SEEDS.value)
    if method == "edges":
        return _edge_run(given, model, task, out, seeds)
    if not isinstance(task, Task):
        raise ValueError(f"task {task.name!r} has no pairs: use --method=edges")
    _refuse(
        method, target_kl=_TARGET_KL.value, target_edges=_TARGET_EDGES.value,
        threshold=_THRESHOLD.value, minimise=_MINIMISE.value,
    )  # fmt: skip
    ablation = given.get("ablation", _D.ablation)
    if ablation == "interchange":
        raise ValueError(f"--ablation=interchange is for --method=edges, not {method}")
    prune = PruneConfig(
        target_loss=given.get("target_loss", _D.target_loss),
        steps=given.get("steps", _WEIGHT_STEPS if method == "weights" else _D.steps),
        batch_size=given.get("batch_size", _WEIGHT_BATCH if method == "weights" else _D.batch_size),
        ablation=ablation,
        tie_qk=_TIE.value,
        calibrate=given.get("calibrate", _D.calibrate),
    )
    if method == "weights":
        return _weight_run(given, model, task, prune, out, seeds, start or _START.value)
    _refuse(method, start=_START.value, target_sparsity=_SPARSITY.value)
    _refuse(method, node_gates=_NODE_GATES.value)
    _refuse(method, **{name: HYPER_FLAGS[name].value for name in ONLY_GATES})
    if given.get("gate", "heaviside") != "heaviside" or given.get("control", "count") != "count":
        raise ValueError("nodes have --gate=heaviside and --control=count; leave both out")
    if ranking != "learned":
        trained = (_STEPS, _BATCH, _JOBS, _GATE, _CONTROL, *HYPER_FLAGS.values())
        values = {flag.name: flag.value for flag in trained if chosen is None}
        return ranking_flags.baseline_run(ranking, model, task, prune, out, seeds, values)
    changes = given.hypers(tuple(name for name in HYPER_FLAGS if name not in ONLY_GATES))
    nodes = model.config.num_nodes
    jobs = [
        job
        for choice in _side_by_side("count", float(default_hyper(nodes).k_coef), changes)
        for job in default_jobs(nodes, seeds, **changes | choice)
    ]
    return PruneRun(model, task, prune, jobs, out)


def _weight_run(
    given: _Given,
    model: Model,
    task: Task,
    prune: PruneConfig,
    out: pathlib.Path,
    seeds: range,
    start: pathlib.Path | str | None,
) -> WeightRun:
    _refuse("weights", **{name: HYPER_FLAGS[name].value for name in ONLY_NODES})
    circuit = None if start is None else Circuit.load(start)
    if circuit is not None:
        circuit.check_model(model)
    gate, control = given.get("gate", "heaviside"), given.get("control", "hold")
    _refuse_unused(gate, control)
    count = (
        total_edges(model.config, model.params)
        if circuit is None
        else count_edges(model.config, model.params, circuit.mask)
    )
    changes = given.hypers((*(n for n in HYPER_FLAGS if n not in ONLY_NODES), "target_sparsity"))
    base = {"target_sparsity": 0.9 if circuit is None else 0.5} if control == "lagrangian" else {}
    centre = float(default_weight_hyper(count, gate, control).k_coef)
    jobs = [
        job
        for choice in _side_by_side(control, centre, changes)
        for job in default_weight_jobs(count, seeds, gate, control, **base | changes | choice)
    ]
    return WeightRun(
        model,
        task,
        prune,
        jobs,
        out,
        circuit,
        gate,
        control,
        bool(_NODE_GATES.value),
    )


def _edge_run(
    given: _Given, model: Model, task: Task | ContrastTask, out: pathlib.Path, seeds: range
) -> EdgeRun:
    _refuse("edges", start=_START.value)
    _refuse("edges", **{name: HYPER_FLAGS[name].value for name in ONLY_NODES})
    aims = {
        "loss": given.get("target_loss", None),
        "kl": _TARGET_KL.value,
        "edges": _TARGET_EDGES.value,
    }
    chosen = [name for name, value in aims.items() if value is not None]
    if len(chosen) > 1:
        raise ValueError(
            f"--target_{chosen[0]} and --target_{chosen[1]} are both given: choose one"
        )
    target = chosen[0] if chosen else "loss"
    value = _E.target_value if not chosen else float(aims[target])  # type: ignore[arg-type]
    if given.get("threshold", "target") == "match_soft":
        if chosen and _THRESHOLD.value:
            raise ValueError(
                f"--threshold=match_soft and --target_{chosen[0]} are both given: choose one"
            )
        target = target if chosen else "match_soft"
    calibrate = given.get("calibrate", "inside")
    if calibrate == "after":
        raise ValueError("--calibrate=after is not for --method=edges: choose inside or off")
    gate = given.get("gate", _E.gate)
    nodes = gate == "hard_concrete" if _NODE_GATES.value is None else _NODE_GATES.value
    settings = EdgeConfig(
        gate=gate,
        control=given.get("control", _E.control if gate == "hard_concrete" else "count"),
        minimise=given.get("minimise", _E.minimise),
        ablation=given.get("ablation", _E.ablation),
        node_gates=nodes,
        steps=given.get("steps", _E.steps),
        batch_size=given.get("batch_size", _E.batch_size),
        target=target,  # type: ignore[arg-type]
        target_value=value,
        calibrate=calibrate == "inside",
    )
    _refuse_unused(settings.gate, settings.control)
    changes = given.hypers((*(n for n in HYPER_FLAGS if n not in ONLY_NODES), "target_sparsity"))
    centre = float(default_edge_hyper(settings).k_coef)
    jobs = [
        job
        for choice in _side_by_side(settings.control, centre, changes)
        for job in default_edge_jobs(settings, seeds, **changes | choice)
    ]
    return EdgeRun(model, task, settings, jobs, out)
