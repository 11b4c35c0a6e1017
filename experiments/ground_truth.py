"""Prunes models whose circuit is known, and prints how much of it was found.

    python -m experiments.ground_truth
    python -m experiments.ground_truth --programs=all --planted=false
    python -m experiments.ground_truth --programs=parity,tests/importers/tracr/reverse.npz

Planted models are pruned at all grains and under the ablations asked for, compiled programs (built-in
ones by name, others in the layout of `circuitjax.importers.tracr`) at that of residual edges, under zero
and interchange ablation, unless told otherwise. A found set is exact if it suffices, no part of it can
go, and no set known to suffice is smaller; beside it stand the parts that are needed with all others
open.
"""

import pathlib
import sys

import numpy as np
from absl import flags

from circuitjax.benchmarks.programs import PROGRAMS
from circuitjax.benchmarks.recovery import Recovery, recover_planted, recover_program
from circuitjax.core.files import require_place, write_bytes
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.gated.grains import GRAINS
from circuitjax.gated.replacement import ABLATIONS
from circuitjax.importers.tracr import TracrProgram, load_tracr
from circuitjax.report.table import markdown_table
from circuitjax.zoo.planted.models import planted_models
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import MOST_JOBS, check_numbers, check_seed
from experiments.progress import TABLE, counted, tell_next

_PROGRAMS = flags.DEFINE_list(
    "programs",
    [],
    f"Compiled programs: names of built-in ones ({', '.join(PROGRAMS)}; all of them: all), or paths of "
    "an .npz.",
)
_PROGRAM_GRAINS = flags.DEFINE_list("program_grains", ["edges"], "Of the programs.")
_PROGRAM_ABLATIONS = flags.DEFINE_list(
    "program_ablations", ["interchange", "zero"], "Of the programs."
)
_PLANTED = flags.DEFINE_bool("planted", True, "Prune the planted models too.")
_MODEL_SEED = flags.DEFINE_integer("model_seed", 0, "Seed the planted models are made from.")
_SEEDS = flags.DEFINE_integer("num_seeds", 5, "Seeds of gates and batches.")
_GRAINS = flags.DEFINE_list("grains", list(GRAINS), "Of the planted models.")
_ABLATIONS = flags.DEFINE_list(
    "ablations", [], "Of the planted models; the default is mean, and interchange for edges."
)
_OUT = flags.DEFINE_string("out", None, "Markdown file to write the table to as well.")

_COLUMNS = (
    *(
        "model",
        "grain",
        "ablation",
        "true",
        "of",
        "circuits known",
        "exact",
        "needed alone",
        "alike",
    ),
    *("precision", "recall", "auroc", "CPU s", "CPU s, truth", "note"),
)


def _row(found: Recovery) -> list[object]:
    results, count = found.results, len(found.results)

    def mean(name: str) -> float | None:
        values = [getattr(r, name) for r in results if getattr(r, name) is not None]
        return float(np.mean(values)) if values else None

    return [
        found.name,
        found.grain,
        found.ablation,
        found.truth.least,
        results[0].num_all,
        len(found.truth.sets),
        f"{found.exact}/{count}",
        len(found.truth.alone),
        f"{found.alike}/{count}",
        mean("precision"),
        mean("recall"),
        mean("auroc"),
        round(found.seconds),
        round(found.seconds_truth),
        _note(found),
    ]


def _note(found: Recovery) -> str:
    """What is wrong with the first seed that is not exact."""
    if not found.truth.least and not any(verdict.size for verdict in found.verdicts):
        return "nothing to find, found nothing"
    for verdict, result in zip(found.verdicts, found.results, strict=True):
        if verdict.exact:
            continue
        if not verdict.check.sufficient:
            return f"does not suffice: {verdict.check.change:.3g} nats"
        if verdict.check.spare:
            return f"to spare: {', '.join(verdict.check.spare[:3])}"
        parts = [f"-{name}" for name in result.missing[:3]]
        return ", ".join([*parts, *(f"+{name}" for name in result.extra[:3])])
    return ""


def _programs() -> list[TracrProgram]:
    given = _PROGRAMS.value
    names = [name for one in given for name in (PROGRAMS if one == "all" else [one])]
    for name in names:
        if name not in PROGRAMS and not pathlib.Path(name).with_suffix(".npz").exists():
            raise ValueError(
                f"--programs has {name!r}, which is no file and none of the built-in ones: choose from "
                f"{', '.join(PROGRAMS)}, or give the path of an .npz"
            )
    return [PROGRAMS[name]().program() if name in PROGRAMS else load_tracr(name) for name in names]


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    check_numbers(_SEEDS, most=MOST_JOBS)
    check_seed(_MODEL_SEED)
    if _OUT.value:
        require_place(_OUT.value)
    known = {
        "grains": (_GRAINS.value, GRAINS),
        "ablations": (_ABLATIONS.value, ABLATIONS),
        "program_grains": (_PROGRAM_GRAINS.value, GRAINS),
        "program_ablations": (_PROGRAM_ABLATIONS.value, ABLATIONS),
    }
    for flag, (given, names) in known.items():
        unknown = sorted(set(given) - set(names))
        if not given and flag == "grains" and _PLANTED.value:
            raise ValueError("--grains is empty: name one, or give --planted=false")
        if not given and flag.startswith("program_") and _PROGRAMS.value:
            raise ValueError(f"--{flag} is empty: name one, or leave --programs out")
        if unknown:
            raise ValueError(f"--{flag} has {unknown[0]!r}; choose from {', '.join(names)}")
    if not (_PLANTED.value or any(_PROGRAMS.value)):
        raise ValueError("--planted=false leaves nothing to prune: name some --programs")
    seeds = range(_SEEDS.value)
    programs = _programs()
    rows = []
    planted_cells = len(planted_models()) * len(_GRAINS.value) * max(len(_ABLATIONS.value), 1)
    program_cells = len(programs) * len(_PROGRAM_GRAINS.value) * len(_PROGRAM_ABLATIONS.value)
    done = counted(_PLANTED.value * planted_cells + program_cells)

    def keep(found: Recovery) -> None:
        rows.append(_row(found))
        done("  ".join(str(cell) for cell in rows[-1]))

    if _PLANTED.value:
        for build in planted_models():
            planted = build(_MODEL_SEED.value)
            for grain in _GRAINS.value:
                usual = "interchange" if grain == "edges" else "mean"
                for ablation in _ABLATIONS.value or [usual]:
                    keep(recover_planted(planted, grain, ablation, seeds))
    for program in programs:
        for grain in _PROGRAM_GRAINS.value:
            for ablation in _PROGRAM_ABLATIONS.value:
                keep(recover_program(program, ablation, seeds, grain=grain))
    table = markdown_table(_COLUMNS, rows)
    print(table)
    if _OUT.value:
        write_bytes(_OUT.value, f"{table}\n".encode())
    tell_next(TABLE, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
