"""Prunes models whose circuit is known, and prints how much of it was found.

    python -m experiments.ground_truth
    python -m experiments.ground_truth --programs=tests/importers/tracr/reverse.npz --planted=false

Planted models are pruned at all grains and under the ablations asked for, compiled RASP programs (in the
layout of `circuitjax.importers.tracr`) at that of residual edges, under zero and interchange ablation.
"""

import numpy as np
from absl import flags

from circuitjax.benchmarks.recovery import Recovery, recover_planted, recover_program
from circuitjax.core.files import require_place, write_bytes
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.gated.grains import GRAINS
from circuitjax.gated.replacement import ABLATIONS
from circuitjax.importers.tracr import load_tracr
from circuitjax.report.table import markdown_table
from circuitjax.zoo.planted.models import planted_models
from experiments.command import exit_on_bad_input, run_main

_PROGRAMS = flags.DEFINE_list("programs", [], "Compiled programs, by the path of their .npz.")
_PLANTED = flags.DEFINE_bool("planted", True, "Prune the planted models too.")
_MODEL_SEED = flags.DEFINE_integer("model_seed", 0, "Seed the planted models are made from.")
_SEEDS = flags.DEFINE_integer("num_seeds", 5, "Seeds of gates and batches.")
_GRAINS = flags.DEFINE_list("grains", list(GRAINS), "Of the planted models.")
_ABLATIONS = flags.DEFINE_list(
    "ablations", [], "Of the planted models; the default is mean, and interchange for edges."
)
_OUT = flags.DEFINE_string("out", None, "Markdown file to write the table to as well.")

_COLUMNS = (
    *("model", "grain", "ablation", "true", "of", "exact", "precision", "recall", "auroc"),
    *("seconds", "missing or extra, first seed that is not exact"),
)


def _row(found: Recovery) -> list[object]:
    results = found.results
    areas = [result.auroc for result in results if result.auroc is not None]
    wrong = next((r for r in results if r.missing or r.extra), None)
    note = "" if wrong is None else ", ".join(
        [f"-{name}" for name in wrong.missing[:3]] + [f"+{name}" for name in wrong.extra[:3]]
    )  # fmt: skip
    return [
        found.name,
        found.grain,
        found.ablation,
        results[0].num_true,
        results[0].num_all,
        f"{found.exact}/{len(results)}",
        float(np.mean([result.precision for result in results])),
        float(np.mean([result.recall for result in results])),
        float(np.mean(areas)) if areas else None,
        round(found.seconds),
        note,
    ]


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    if _SEEDS.value < 1:
        raise ValueError(f"--num_seeds={_SEEDS.value} must be at least 1")
    if _OUT.value:
        require_place(_OUT.value)
    known = {"grains": (_GRAINS.value, GRAINS), "ablations": (_ABLATIONS.value, ABLATIONS)}
    for flag, (given, names) in known.items():
        unknown = sorted(set(given) - set(names))
        if not given and flag == "grains" and _PLANTED.value:
            raise ValueError("--grains is empty: name one, or give --planted=false")
        if unknown:
            raise ValueError(f"--{flag} has {unknown[0]!r}; choose from {', '.join(names)}")
    seeds = range(_SEEDS.value)
    programs = [load_tracr(path) for path in _PROGRAMS.value]
    rows = []

    def keep(found: Recovery) -> None:
        rows.append(_row(found))
        print("  ".join(str(cell) for cell in rows[-1]), flush=True)

    if _PLANTED.value:
        for build in planted_models():
            planted = build(_MODEL_SEED.value)
            for grain in _GRAINS.value:
                usual = "interchange" if grain == "edges" else "mean"
                for ablation in _ABLATIONS.value or [usual]:
                    keep(recover_planted(planted, grain, ablation, seeds))
    for program in programs:
        for ablation in ("interchange", "zero"):
            keep(recover_program(program, ablation, seeds))
    table = markdown_table(_COLUMNS, rows)
    print(f"\n{table}")
    if _OUT.value:
        write_bytes(_OUT.value, f"{table}\n".encode())


if __name__ == "__main__":
    run_main(main)
