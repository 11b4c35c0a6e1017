"""How far to trust a circuit: every check on one circuit, in one call.

    evidence -> other replacements, templates -> each part's effect -> polish -> supersets
             -> other seeds and controls (jobs of one program) -> named checks

The searches of the last stage share a budget that is smaller than the circuit's own by default, so that
an audit takes no longer than the search it judges; sizes are compared within that budget.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from circuitjax.audit import replacement
from circuitjax.audit.agreement import agreement
from circuitjax.audit.checks import full_checks
from circuitjax.audit.evidence import baseline, compare, evidence, gated_problem
from circuitjax.audit.parts import Effects, Parts, effects
from circuitjax.audit.polish import PolishAt, polish
from circuitjax.audit.reruns import run_worlds, stability
from circuitjax.audit.supersets import FRACTIONS, supersets
from circuitjax.audit.worlds import make_worlds
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import Model
from circuitjax.model.sites import flatten
from circuitjax.prune.config import LIMITS, Hyper, PruneConfig, check_limits, default_hyper
from circuitjax.prune.packing import some_of
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.tasks.base import Task
from circuitjax.tasks.splits import draw_pairs
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["Audit", "AuditConfig", "audit_circuit", "hyper_of", "settings_of"]


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """How much an audit does.

    Attributes:
      seeds: of the stability test, counted from `seed`.
      batch_size: pairs per step of every search (seeds and controls); None: as the circuit's own.
      steps: of every search; None: as the circuit's own.
      pairs: test pairs, and validation pairs, of every figure but the headline's; each part's effect and
        agreement inside take half of them, the adversary searches on a quarter.
      search_pairs: validation pairs that a search's k is chosen on, and test pairs it is judged by.
      fractions: of the rest that is left in by random supersets.
      sets: random supersets per fraction.
      search_steps: gradient steps of the adversarial superset, from each of two starts.
      search: run the searches at all.
      polish: polish at all.
      polish_at: see `polish`.
      polish_rounds: likewise.
      seed: of everything random.
    """

    seeds: int = 5
    batch_size: int | None = 8
    steps: int | None = None
    pairs: int = 128
    search_pairs: int = 64
    fractions: tuple[float, ...] = FRACTIONS
    sets: int = 4
    search_steps: int = 12
    search: bool = True
    polish: bool = True
    polish_at: PolishAt = "target"
    polish_rounds: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 5:
            raise ValueError(f"seeds is {self.seeds}; it must be at least 5 to speak of stability")
        for name in (
            "batch_size",
            "steps",
            "pairs",
            "search_pairs",
            "sets",
            "search_steps",
            "polish_rounds",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed is {self.seed}; it must be in [0, 2^32 - {self.seeds})")
        if not self.fractions or not all(0 < value < 1 for value in self.fractions):
            raise ValueError(f"fractions are {self.fractions}; each must be in (0, 1)")


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
      figures: JSON-able; `checks` among them is the verdict.
      polished: the smaller circuit; None where nothing was polished.
      differences: logit differences `[M, 2]` of the model and of the circuit on the test pairs, nats.
      effects: what each part does.
    """

    figures: dict[str, Any]
    polished: Circuit | None
    differences: tuple[np.ndarray, np.ndarray]
    effects: Effects


def settings_of(circuit: Circuit) -> PruneConfig:
    """The settings a circuit was found with, from its record.

    Raises:
      ValueError: a record without them.
    """
    facts = circuit.provenance
    settings = facts.get("prune", facts.get("config"))
    if not isinstance(settings, Mapping):
        raise ValueError(
            "the circuit's record does not say with what settings it was found: give them as a "
            "PruneConfig"
        )
    known = {field.name for field in dataclasses.fields(PruneConfig)}
    return PruneConfig(**{name: value for name, value in settings.items() if name in known})


def hyper_of(circuit: Circuit) -> Hyper | None:
    """The hyperparameters of the run that gave a node circuit, from its record; None: unknown."""
    facts = circuit.provenance
    jobs = facts.get("jobs")
    found = facts.get("chosen") or facts.get("hyper") or (jobs[0] if jobs else None)
    if not isinstance(found, Mapping) or not set(LIMITS) <= set(found):
        return None
    values = {name: float(found[name]) for name in LIMITS}
    check_limits(values, LIMITS)
    return Hyper(**values)


def audit_circuit(
    model: Model,
    task: Task,
    circuit: Circuit,
    config: AuditConfig | None = None,
    *,
    prune: PruneConfig | None = None,
    hyper: Hyper | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Audits a circuit of nodes or of single weights.

    Args:
      model: the circuit's own.
      task: what it was found for.
      circuit: to judge.
      config: how much to do; None for the defaults.
      prune: settings of its search (target, ablation, sizes of the sets); None: as its record says.
      hyper: hyperparameters of the searches; None: as its record says, else the defaults.
      say: called with a line at the start of each stage.

    Raises:
      ValueError: another model's circuit, an empty one, one whose settings are unknown, a loss over the
        whole vocabulary, or a task that the model cannot be asked.
    """
    config = config or AuditConfig()
    circuit.check_model(model)
    if circuit.num_nodes == 0:
        raise ValueError("the circuit keeps no node: there is nothing to audit")
    prune = prune or settings_of(circuit)
    if prune.loss != "binary":
        raise ValueError(f"an audit needs loss='binary'; the circuit was found with {prune.loss!r}")
    if hyper is None:
        hyper = hyper_of(circuit) or default_hyper(model.config.num_nodes)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str, line: str) -> Iterator[None]:
        say(line)
        started = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - started, 2)

    skipped: dict[str, str] = {}
    with stage("data", "drawing the task's pairs"):
        problem = make_problem(model, task, prune)
        gated = gated_problem(problem, circuit)
        tokenizer = Tokenizer.from_json(model.tokenizer_json)
        size = None if task.pool else prune.test_pairs
        names = [pair.template for pair in draw_pairs(task, tokenizer, "test", size, 0)]
    causal = model.config.causal
    test = some_of(problem.test, causal, config.pairs)
    few = some_of(problem.validation, causal, max(1, config.pairs // 2))
    with stage("evidence", "sufficiency, necessity, faithfulness"):
        compared = compare(problem, circuit)
        base = baseline(problem, compared.model)
        figures = evidence(problem, circuit, config.seed, compared)
        of_model, differences = (a.differences[0] for a in (compared.model, compared.circuit))
    calibrated = prune.calibrate != "off"
    scale, shift = (circuit.scale, circuit.shift) if calibrated else (1.0, 0.0)
    with stage("replacement", "other replacements, frozen norms, templates"):
        enough = replacement.sufficiency(
            problem, circuit, test, means=model.means, seed=config.seed
        )
        templates = replacement.by_template(differences, names, scale, shift)
        inside = agreement(
            problem, circuit, some_of(problem.test, causal, max(1, config.pairs // 2))
        )
    parts = Parts(gated, circuit)
    with stage("effects", "each node and edge by itself"):
        alone = effects(parts, circuit, few, calibrated=calibrated)
    polished = None
    if config.polish:
        with stage("polish", "polishing"):
            polished = polish(
                problem,
                circuit,
                at=config.polish_at,
                rounds=config.polish_rounds,
                alone=alone,
            )
    else:
        skipped["polish"] = "not asked for"
    around = None
    if circuit.weights is None:
        with stage("supersets", "random and adversarial supersets"):
            around = supersets(
                problem,
                circuit,
                test,
                some_of(problem.validation, causal, max(1, config.pairs // 4)),
                fractions=config.fractions,
                sets=config.sets,
                steps=config.search_steps,
                seed=config.seed,
            )
    else:
        skipped["supersets"] = "for circuits of nodes only"
    searched: dict[str, Any] = {"runs": [], "worlds": {}, "stability": None}
    reason = _no_search(circuit, config)
    if reason is None:
        with stage("search", f"{config.seeds} seeds and the controls, jobs of one program"):
            searched = _search(model, task, problem, circuit, hyper, config, skipped)
    else:
        names_of = ("templates", "nonsense", "shuffled", "weights", "stability")
        skipped |= dict.fromkeys(names_of, reason)
    mine = [run for run in searched["runs"] if run["world"] == "task"]
    reached = [run["nodes"] for run in mine if run["reached"]]
    found: dict[str, Any] = {
        "model": model.name,
        "model_hash": model.hash,
        "task": task.name,
        "target_loss": prune.target_loss,
        "nodes": circuit.num_nodes,
        "nodes_total": model.config.num_nodes,
        "edges": int(parts.edges.sum()),
        "baseline": base,
        "evidence": figures,
        "sufficiency": enough,
        "templates": templates,
        "agreement": inside,
        "effects": _effect_figures(alone, prune.target_loss),
        "polish": None if polished is None else polished.provenance["polish"],
        "supersets": None if around is None else _superset_figures(around),
        **searched,
        "own_nodes": float(np.median(reached)) if reached else circuit.num_nodes,
        "skipped": skipped,
        "seconds": seconds,
        "settings": {
            "audit": dataclasses.asdict(config),
            "prune": prune.to_dict(),
            "hyper": hyper.to_dict(),
        },
    }
    found["checks"] = [check.to_dict() for check in full_checks(found)]
    return Audit(found, polished, (of_model, differences), alone)


def _no_search(circuit: Circuit, config: AuditConfig) -> str | None:
    """Why the search is not repeated, or None."""
    if not config.search:
        return "not asked for"
    if circuit.weights is not None:
        return "for circuits of nodes only"
    if circuit.provenance.get("ranking", "learned") != "learned":
        return "the circuit was not found by trained masks"
    return None


def _search(
    model: Model,
    task: Task,
    problem: Problem,
    circuit: Circuit,
    hyper: Hyper,
    config: AuditConfig,
    skipped: dict[str, str],
) -> dict[str, Any]:
    prune = dataclasses.replace(
        problem.prune,
        batch_size=config.batch_size or problem.prune.batch_size,
        steps=config.steps or problem.prune.steps,
    )
    smaller = dataclasses.replace(problem, prune=prune)
    # More than are looked at, so that they fill rows as the whole set does.
    pairs = 4 * config.search_pairs
    worlds, absent = make_worlds(model, task, smaller, seed=config.seed, pairs=pairs)
    skipped |= absent
    seeds = range(config.seed, config.seed + config.seeds)
    runs = run_worlds(worlds, hyper, seeds, pairs=config.search_pairs)
    mine = [run for run in runs if run.world == "task"]
    flat = np.asarray(flatten(circuit.gates())) > 0.5
    return {
        "runs": [run.to_dict() for run in runs],
        "worlds": {world.name: world.note for world in worlds},
        "stability": stability(smaller, mine, flat, pairs=config.pairs),
    }


def _effect_figures(found: Effects, target: float) -> dict[str, Any]:
    """Effects for the report: a part is idle that costs under 1% of the target, or helps by leaving."""
    nodes, edges = np.array(list(found.nodes.values())), np.array(list(found.edges.values()))
    return {
        "loss": found.loss,
        "idle_nodes": float(np.mean(nodes < 0.01 * target)) if len(nodes) else None,
        "idle_edges": float(np.mean(edges < 0.01 * target)) if len(edges) else None,
        "estimated_nodes": found.estimated_nodes,
        "estimated_edges": found.estimated_edges,
        "nodes": {name: round(value, 6) for name, value in found.nodes.items()},
        "edges": [[a, b, round(value, 6)] for (a, b), value in found.edges.items()],
    }


def _superset_figures(found: Any) -> dict[str, Any]:
    return {
        "fractions": list(found.fractions),
        "random": [list(losses) for losses in found.random],
        "adversarial": found.adversarial,
        "adversarial_fraction": found.adversarial_fraction,
        "adversarial_from": found.adversarial_from,
        "search": [list(path) for path in found.search],
    }
