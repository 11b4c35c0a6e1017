"""Ranks residual edges of models whose circuit is known: how well each ranking knows it.

    python -m experiments.ranking_truth
    python -m experiments.ranking_truth --models=2 --pairs=16

The AUROC is the chance that a true edge ranks before another; the recall is of as many first edges as
are true. Models are planted (`circuitjax.zoo.planted`), closed edges are interchanged.
"""

import sys

from absl import flags

from circuitjax.benchmarks.ranking_truth import truth_of_rankings
from circuitjax.core.files import require_place, write_bytes
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.report.table import markdown_table
from circuitjax.zoo.planted.models import planted_models
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_numbers, check_seed
from experiments.progress import TABLE, counted, tell_next

_MODELS = flags.DEFINE_integer("models", 100, "How many of the planted models, at most.")
_PAIRS = flags.DEFINE_integer("pairs", 64, "Training pairs that gradients are of.")
_OF = flags.DEFINE_enum("attribute_to", "odds", ["odds", "loss"], "What gradients are of.")
_MODEL_SEED = flags.DEFINE_integer("model_seed", 0, "Seed the planted models are made from.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random ranking, and of ties.")
_OUT = flags.DEFINE_string("out", None, "Markdown file to write the table to as well.")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    keep_freed_memory()
    cache_compilations()
    check_numbers(_MODELS, _PAIRS)
    check_seed(_MODEL_SEED, _SEED)
    if _OUT.value:
        require_place(_OUT.value)
    rows = []
    builds = planted_models()[: _MODELS.value]
    done = counted(len(builds))
    for build in builds:
        planted = build(_MODEL_SEED.value)
        for one in truth_of_rankings(planted, items=_PAIRS.value, of=_OF.value, seed=_SEED.value):
            named = f"{one.ranking} {one.sign}".strip()
            rows.append([one.model, named, one.num_true, one.num_all, one.auroc, one.recall])
        done(f"ranked the edges of {build.__name__}")
    text = markdown_table(["model", "ranking", "true", "of", "AUROC", "recall"], rows)
    print(text)
    if _OUT.value:
        write_bytes(_OUT.value, f"{text}\n".encode())
    tell_next(TABLE, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
