"""How many mutually different circuits does a task have, and what do they share?

    python -m experiments.uniqueness --task=single_double_quote --num_circuits=3
    python -m experiments.uniqueness --planted=two_ways
    python -m experiments.uniqueness --task=ioi --grain=edges --model=models/smollm2 --target_kl=0.5

Searches for a circuit, then for one without its gates, and so on, until the target is missed or
--num_circuits are found; as many seeds of the plain search stand beside. Circuits are different where
the Jaccard index of their open gates is at most 0.2. In --out: uniqueness.json (every figure; losses in
nats on the test split) and uniqueness.md.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from absl import flags

from circuitjax.benchmarks.recovery import jobs_of, planted_problem, planted_search
from circuitjax.benchmarks.uniqueness import (
    DIFFERENT,
    MOST,
    Group,
    Jobs,
    Uniqueness,
    uniqueness,
)
from circuitjax.core.files import write_bytes, write_json
from circuitjax.core.host import alone_in, cache_compilations, keep_freed_memory
from circuitjax.core.records import open_sealed, seal
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_jobs
from circuitjax.prune.find import prepare
from circuitjax.prune.problem import Problem
from circuitjax.report.table import markdown_table
from circuitjax.run.directory import UNIQUENESS, claim, digest_of, holds
from circuitjax.run.search import asked_of
from circuitjax.zoo.planted.redundant import redundant_models
from experiments import pruning_flags
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_seed
from experiments.progress import counted, say, tell_next
from experiments.task_names import load_task

_PLANTED_MODELS = {build.__name__: build for build in redundant_models()}
FORMAT = "circuitjax-uniqueness-2"
_NEXT = "docs/how-to/read-an-audit.md says what to make of several circuits of one task"

flags.adopt_module_key_flags(pruning_flags)
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASK = flags.DEFINE_string(
    "task", None, "Name of a task (`prune --list_tasks`), or a .jsonl file."
)
_PLANTED = flags.DEFINE_enum(
    "planted",
    None,
    list(_PLANTED_MODELS),
    "A planted model whose number of circuits is known, instead of a task.",
)
_COUNT = flags.DEFINE_integer(
    "num_circuits", 4, "Circuits that are looked for at most, and plain seeds."
)
_POLISH = flags.DEFINE_bool("polish", True, "Remove what a circuit does not need, part by part.")
_OUT = flags.DEFINE_string("out", None, "Directory. Default: runs/uniqueness/<model>/<task>.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what another search left in --out.")


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is searched, and how; `facts` tell one from another."""

    problem: Callable[[], Problem]
    search: Search
    jobs: Jobs
    facts: dict[str, Any]


def _refuse(names: Collection[str], why: str) -> None:
    for name in names:
        if flags.FLAGS[name].present:
            raise ValueError(f"--{name} has no meaning {why}: leave it out")


def _asked() -> _Asked:
    _refuse(("num_seeds", "num_jobs", "start"), "where circuits follow one another")
    if pruning_flags.chosen_values()["ranking"] != "learned":
        raise ValueError(f"--ranking={flags.FLAGS.ranking} trains nothing: it is learned here")
    if _PLANTED.value is not None:
        return _of_planted(_PLANTED.value)
    model, task = load_task(_TASK.value, _MODEL.value)
    search, hypers = pruning_flags.build_search(model, task, {"ranking": "learned"})
    given: dict[str, Any] = dict(hypers)
    Hyper(**given).check()
    search = _eliminating(search)
    facts = {**asked_of(model, task), "hypers": given}
    return _Asked(
        lambda: prepare(model, task, search),
        search,
        lambda seed, count: default_jobs(search, count, [seed], **given),
        facts,
    )


def _of_planted(name: str) -> _Asked:
    own = {flag.name for flag in flags.FLAGS.get_flags_for_module(pruning_flags)}
    own -= {"grain", "method", "ablation", "seed"}
    _refuse(sorted({*own, "task", "model"}), "with --planted, which has settings of its own")
    grain = pruning_flags.chosen_values()["grain"]
    # Under interchange a way that is closed argues for the corrupted answer: none does the task alone.
    ablation = flags.FLAGS.ablation or "mean"
    search = _eliminating(planted_search(grain, ablation))
    ways = _PLANTED_MODELS[name](0)
    facts = {"model": name, "model_hash": ways[0].model.hash, "task": name, "hypers": {}}
    return _Asked(
        lambda: planted_problem(ways[0], search),
        search,
        lambda seed, count: jobs_of(search, count, [seed]),
        facts,
    )


def _eliminating(search: Search) -> Search:
    """Parts that are not needed would be missing in the next circuit."""
    if not search.selection.is_loss:
        raise ValueError(
            f"the search is cut to {search.selection.target}, but circuits are compared at equal "
            "loss: give --target_loss or --target_kl"
        )
    selection = dataclasses.replace(search.selection, eliminate=True)
    return dataclasses.replace(search, selection=selection)


def _table(group: Group) -> str:
    rows = [
        [
            number + 1,
            one.how,
            one.seed,
            len(one.parts),
            "yes" if one.reached else "no",
            "yes" if number in group.different else "no",
            one.loss,
            one.loss_own,
            one.loss_without,
            " ".join(f"{x:.2f}" for x in group.overlaps[number]),
        ]
        for number, one in enumerate(group.circuits)
    ]
    header = ("circuit", "found", "seed", "parts", "target met", "different", "loss, alone")
    more = ("loss, its own parts", "loss, model without it", "Jaccard with each")
    return markdown_table((*header, *more), rows)


def _text(found: Uniqueness, facts: Mapping[str, Any]) -> str:
    """The report for people."""

    def shared(group: Group) -> str:
        words = "suffice" if group.loss_shared <= found.suffices else "do not suffice"
        return (
            f"{group.shared} parts are shared by all that meet the target, and {words} "
            f"({group.loss_shared:.3f} nats); together they have {group.together} "
            f"({group.loss_together:.3f} nats)."
        )

    return "\n\n".join(
        [
            f"# Circuits of {facts['task']} in {facts['model']}",
            f"Mutually different circuits found: **{found.count}** (Jaccard of open gates at most "
            f"{DIFFERENT}, target {found.target:g} nats on validation; at least so many exist). The "
            f"whole model has {found.loss_whole:.3f} nats on test, the empty circuit "
            f"{found.loss_empty:.3f}; a set suffices with at most {found.suffices:.3f}.",
            "## Each without the gates of those before it",
            _table(found.apart),
            shared(found.apart),
            "## Seeds of the plain search",
            _table(found.plain),
            f"Mutually different: {len(found.plain.different)}. {shared(found.plain)}",
        ]
    )


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if not 1 <= _COUNT.value <= MOST:
        raise ValueError(f"--num_circuits={_COUNT.value} must be from 1 to {MOST}")
    check_seed(flags.FLAGS["seed"])
    asked = _asked()
    facts = asked.facts
    place = pathlib.Path(facts["model"]).name
    out = pathlib.Path(_OUT.value or f"runs/uniqueness/{place}/{facts['task']}")
    first = pruning_flags.chosen_values()["seed"]
    identity = {
        **facts,
        "search": asked.search.to_dict(),
        "num_circuits": _COUNT.value,
        "seed": first,
        "polish": _POLISH.value,
    }
    shown = _finished(out, identity)
    if shown is None:
        keep_freed_memory()
        cache_compilations()
        with alone_in(out):
            found = uniqueness(
                asked.problem(),
                asked.search,
                asked.jobs,
                _COUNT.value,
                seed=first,
                polished=_POLISH.value,
                say=counted(2 * _COUNT.value),  # at most: it ends where a circuit misses
            )
            holds(UNIQUENESS, out, identity, overwrite=_OVERWRITE.value)
            claim(UNIQUENESS, out, identity)
            _write(out, found, facts, digest_of(UNIQUENESS, identity))
        shown = found
    else:
        say("already finished: this is its report; another --out finds them anew")
    print(f"{_text(shown, facts)}\n", end="")
    print(f"  written to {out}")
    tell_next(_NEXT)


def _write(out: pathlib.Path, found: Uniqueness, facts: Mapping[str, Any], asked: str) -> None:
    write_bytes(out / "uniqueness.md", f"{_text(found, facts)}\n".encode())
    write_json(out / "uniqueness.json", seal({"format": FORMAT, "asked": asked, **found.to_dict()}))


def _finished(out: pathlib.Path, identity: Mapping[str, Any]) -> Uniqueness | None:
    """What was found before in a directory; None if nothing was, or if it is to be replaced.

    Raises:
      ValueError: a directory of something else, or a record that was changed.
    """
    record = out / "uniqueness.json"
    if not holds(UNIQUENESS, out, identity, overwrite=_OVERWRITE.value) or not record.exists():
        return None
    try:
        fields = open_sealed(record, FORMAT)
        if fields.text("asked") != digest_of(UNIQUENESS, identity):
            raise ValueError(f"{record} is not of what {out / UNIQUENESS.record} asks for")
        found = Uniqueness.from_dict(fields.to_dict(), str(record))
    except ValueError as error:
        if _OVERWRITE.value:
            return None
        raise ValueError(f"{error}; --overwrite finds them anew") from None
    _write(out, found, identity, fields.text("asked"))  # its text may have been lost or changed
    return found


if __name__ == "__main__":
    run_main(main)
