"""Ranks a model's residual edges in several ways and compares the circuits of equal size.

    python -m experiments.edge_rankings --model=models/smollm2 --task=ioi --rankings=eap
    python -m experiments.edge_rankings --model=models/smollm2 --task=ioi --rankings=learned
    python -m experiments.edge_rankings --model=models/smollm2 --task=ioi --rankings=

Each ranking is kept in --out and not done again; the table and the figure are of all that are there. One
ranking a command gives each its own peak memory. Rankings by gradients are cut both ways, by size of
the score (absolute) and as it is (signed). Faithfulness is of the mean logit difference on test
examples under interchange; CPR and CMD are the benchmark's areas (`circuitjax.benchmarks.faithfulness`).
`eliminated` closes edges from the whole model on, the least needed first, by slope and curvature of the
KL; `learned` trains gates to hold a KL (--target_kl) and eliminates what they leave open, or with
--target_sparsity by the published method and by scores alone. Seconds are CPU seconds, compilation
included. Scores by gradients are kept as graphs in the benchmark's format too, in graphs/, and a ranking
may be such a file of anyone's: --rankings=scores.json.
"""

import dataclasses
import hashlib
import math
import pathlib
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from circuitjax.benchmarks.faithfulness import FRACTIONS, faithfulness_curve
from circuitjax.core.files import read_object, write_bytes, write_json
from circuitjax.core.host import alone_in, cache_compilations, keep_freed_memory
from circuitjax.core.records import open_sealed, seal
from circuitjax.export.benchmark_file import read_scores, scores_graph
from circuitjax.model.config import TransformerConfig
from circuitjax.prune.attribution import ATTRIBUTIONS, gains, signed
from circuitjax.prune.candidates import FAR, rank_jobs
from circuitjax.prune.config import SYNONYMS
from circuitjax.prune.defaults import Search, default_hyper, default_search
from circuitjax.prune.find import prepare, refuse_search
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Baseline, rank_scores, scores_without_training
from circuitjax.prune.train import Job
from circuitjax.report.rankings import draw_curves, rankings_table
from circuitjax.run.directory import RANKINGS, claim, digest_of, holds
from circuitjax.run.search import asked_of
from circuitjax.tasks.base import Task
from experiments.command import exit_on_bad_input, run_main
from experiments.devices import laid_out
from experiments.limits import MOST_JOBS, check_numbers, check_seed
from experiments.progress import counted, say, tell_next
from experiments.task_names import load_task

_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string("task", None, "Name of a task, or a .jsonl file.")
_RANKINGS = flags.DEFINE_list(
    "rankings",
    ["random", "eap", "eap_ig_inputs", "gim", "eliminated", "learned"],
    "Rankings to add; a name that ends in .json is a file of scores.",
)
_ABLATION = flags.DEFINE_string("ablation", "interchange", "What closed edges carry.")
_TRAIN = flags.DEFINE_integer("train_examples", 64, "That gradients and gates are taken on.")
_TEST = flags.DEFINE_integer("test_examples", 32, "That faithfulness is of.")
_POINTS = flags.DEFINE_integer("points", 5, "Places on the path of an integrated ranking.")
_OF = flags.DEFINE_enum("attribute_to", "odds", ["odds", "loss"], "What gradients are of.")
_STEPS = flags.DEFINE_integer("steps", 300, "Training steps of learned edges.")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Examples of a step.")
_KL = flags.DEFINE_float("target_kl", 0.1, "KL in nats that learned gates hold.")
_SPARSITY = flags.DEFINE_float(
    "target_sparsity", None, "Fraction of edges to close, by the published method instead of a KL."
)
_WARM = flags.DEFINE_string(
    "warm_start", None, "Ranking that learned gates start from. Default: fisher; by sparsity none."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of gates, batches and ties.")
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/edge_rankings/<model>/<task>.")


FORMAT = "circuitjax-ranking-2"
_UNSIGNED = ("random", "fisher", "eliminated")


def _known(name: str) -> str:
    """The name of a ranking under which it is kept."""
    if name == "learned":
        named = name if _SPARSITY.value is None else "learned_by_sparsity"
        return named if _WARM.value is None else f"{named}_from_{_WARM.value}"
    if name.endswith(".json"):
        stem = pathlib.Path(name).name.removesuffix(".json")
        if (
            stem in _UNSIGNED
            or stem.startswith("learned")
            or SYNONYMS.get(stem, stem) in ATTRIBUTIONS
        ):
            raise ValueError(
                f"--rankings holds {name!r}, which would be shown as our ranking {stem!r}: rename it"
            )
        return stem
    if SYNONYMS.get(name, name) not in (*ATTRIBUTIONS, *_UNSIGNED):
        known = ("learned", *_UNSIGNED, *ATTRIBUTIONS, *SYNONYMS)
        raise ValueError(f"--rankings holds {name!r}; choose from {', '.join(known)}")
    return name


def _learned(problem: Problem, search: Search) -> np.ndarray:
    count = int(problem.whole.exists().sum())
    given = {} if _SPARSITY.value is None else {"target_sparsity": _SPARSITY.value}
    jobs = [Job(_SEED.value, default_hyper(search, count, **given))]
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    return rank_jobs(problem, _ranking_all(search), jobs, state, say)[0].ranks


def _eliminated(problem: Problem, search: Search) -> np.ndarray:
    """Ranks by backward elimination from the whole model."""
    choices = dataclasses.replace(search.choices, ranking="eliminated", warm_start="none")
    whole, baseline = dataclasses.replace(search, choices=choices), Baseline.of(choices)
    scores = scores_without_training(problem, baseline, _SEED.value)
    jobs = [Job(_SEED.value, baseline)]
    return rank_jobs(problem, _ranking_all(whole), jobs, scores[None], say)[0].ranks


def _ranking_all(search: Search) -> Search:
    """The search with an elimination that goes on until little is left, whatever gates are to hold."""
    return dataclasses.replace(search, selection=dataclasses.replace(search.selection, value=FAR))


def _scores(name: str, config: TransformerConfig) -> np.ndarray:
    """Scores `[E]` of a file; ValueError, which names it, if it holds none."""
    try:
        return read_scores(read_object(name), config)[0]
    except ValueError as error:
        raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from None


def _gains(problem: Problem, name: str) -> np.ndarray:
    """Scores `[E]` by gradients, or of a file."""
    if name.endswith(".json"):
        return _scores(name, problem.model.config)
    canonical = SYNONYMS.get(name, name)
    points = None if ATTRIBUTIONS[canonical].points == 1 else _POINTS.value
    return gains(problem, problem.train, canonical, points=points, of=_OF.value)


def _ranks(out: pathlib.Path, problem: Problem, search: Search, name: str) -> dict[str, np.ndarray]:
    """Ranks by the sign under which they are cut; one of no sign has none."""
    if name == "learned":
        return {"": _learned(problem, search)}
    if name == "eliminated":
        return {"": _eliminated(problem, search)}
    if name in _UNSIGNED:
        scores = scores_without_training(problem, Baseline(name), _SEED.value)  # type: ignore[arg-type]
        return {"": rank_scores(problem, scores, _SEED.value).ranks}
    found = _gains(problem, name)
    graph = scores_graph(problem.model.config, found)
    write_json(out / "graphs" / f"{_known(name)}.json", graph)
    return {
        sign: rank_scores(problem, signed(found, sign), _SEED.value).ranks
        for sign in ("absolute", "signed")
    }


def _digest(name: str) -> str | None:
    """sha256 of a file of scores; None for a ranking that is made here."""
    if not name.endswith(".json"):
        return None
    return hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()


def _kept(out: pathlib.Path, asked: str) -> dict[str, dict[str, Any]]:
    """Records of the rankings in a directory by name, all of them of this very question."""
    records = {}
    for path in sorted((out / "rankings").glob("*.json")):
        record = open_sealed(path, FORMAT)
        if record.text("asked") != asked or record.text("ranking") != path.stem:
            raise ValueError(
                f"{path} was made for something else: remove it, or choose another --out"
            )
        records[path.stem] = record.to_dict()
    return records


def _left(names: Sequence[str], out: pathlib.Path, asked: str) -> list[str]:
    """Rankings that are not there yet; ValueError for one that is there from other scores."""
    kept = _kept(out, asked)
    for name in names:
        held = kept.get(_known(name))
        if held is not None and held["scores"] != _digest(name):
            raise ValueError(
                f"{out} has a ranking {_known(name)!r} of other scores than {name} has: rename the "
                "file, or choose another --out"
            )
    return [name for name in names if _known(name) not in kept]


def _add(out: pathlib.Path, problem: Problem, search: Search, asked: str, name: str) -> str:
    """Adds a ranking to the directory; what it took."""
    started, known = time.process_time(), _known(name)
    ranked = _ranks(out, problem, search, name)
    seconds = time.process_time() - started
    (out / "rankings").mkdir(exist_ok=True)
    for sign, row in ranked.items():
        np.save(out / "rankings" / f"{known}{sign and '_'}{sign}.npy", row)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows: list[dict[str, Any]] = []
    for sign, ranks in ranked.items():
        curve = faithfulness_curve(problem, ranks, problem.test)
        rows.append({"sign": sign, **curve.to_dict()})
        first = np.argsort(ranks)[: len(ranks) // 100]
        rows[-1]["first"] = [problem.whole.names()[i] for i in first]
    record: dict[str, Any] = {"format": FORMAT, "asked": asked, "ranking": known}
    record |= {"scores": _digest(name), "cpu_seconds": seconds, "peak_gib": peak, "curves": rows}
    write_json(out / "rankings" / f"{known}.json", seal(record))
    return f"{known}: {seconds:.0f} CPU seconds, peak {peak:.1f} GiB"


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    names = [name for name in _RANKINGS.value if name]
    for name in names:
        _known(name)
    check_numbers(_TRAIN, _TEST, _STEPS, _BATCH)
    check_numbers(_POINTS, most=MOST_JOBS)
    check_seed(_SEED)
    if _SPARSITY.value is not None:
        check_numbers(_SPARSITY, least=0, most=1)
    if not 0 < _KL.value < math.inf:
        raise ValueError(f"--target_kl={_KL.value:g} must be above 0")
    model, task = load_task(_TASK.value, _MODEL.value)
    place = f"runs/edge_rankings/{pathlib.Path(model.name).name}/{task.name}"
    out = pathlib.Path(_OUT.value or place)
    by_sparsity = _SPARSITY.value is not None
    search = default_search(
        "edges",
        paired=isinstance(task, Task),
        config=model.config,
        ablation=_ABLATION.value,
        gate="hard_concrete" if by_sparsity else "heaviside",
        control="lagrangian" if by_sparsity else "hold",
        warm_start=_WARM.value or ("none" if by_sparsity else "fisher"),
        target_kl=_KL.value,
        eliminate=not by_sparsity,
        train=_TRAIN.value,
        validation=16,
        test=_TEST.value,
        steps=_STEPS.value,
        batch_size=_BATCH.value,
    )
    identity = {
        **asked_of(model, task),
        **{flag.name: flag.value for flag in (_ABLATION, _TRAIN, _TEST, _POINTS, _OF)},
        **{flag.name: flag.value for flag in (_STEPS, _BATCH, _KL, _SPARSITY, _SEED)},
    }
    holds(RANKINGS, out, identity)  # refuses, before any work
    asked = digest_of(RANKINGS, identity)
    for name in names:
        if name.endswith(".json"):
            _scores(name, model.config)
            continue
        ranking = SYNONYMS.get(name, name)
        choices = dataclasses.replace(search.choices, ranking=ranking)  # type: ignore[arg-type]
        refuse_search(model, task, dataclasses.replace(search, choices=choices))
    left = _left(names, out, asked)
    if not left and not _kept(out, asked):
        raise ValueError(f"{out} holds no ranking yet: name some in --rankings")
    with alone_in(out):
        if left and not holds(RANKINGS, out, identity):
            claim(RANKINGS, out, identity)
        if left:
            with laid_out():
                problem = prepare(model, task, search)
                nodes, edges = problem.whole.totals()
                say(
                    f"{model.name}: {edges} residual edges between {nodes} writers and readers' owners"
                )
                done = counted(len(left))
                for name in left:
                    done(_add(out, problem, search, asked, name))
        records = list(_kept(out, asked).values())
        text = rankings_table(records)
        write_bytes(out / "table.md", text.encode())
        draw_curves(records, out / "faithfulness.png")
    print(text)
    print(f"at {', '.join(f'{fraction:.1%}' for fraction in FRACTIONS)} of all edges; in {out}")
    tell_next(f"look at {out}/faithfulness.png; --rankings adds others to the table")


if __name__ == "__main__":
    run_main(main)
