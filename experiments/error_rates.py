"""Measures how often the audit's tests are wrong, and how often they see what is there.

    python -m experiments.error_rates

Planted models, whose circuit is known, and the same networks with their weights shuffled; every test
where its null hypothesis holds by construction, and where it does not. Prints a Markdown table.
"""

import pathlib
import sys

from absl import flags

from circuitjax.benchmarks.error_rates import error_rates, rates_table
from circuitjax.core.files import require_place, write_bytes
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.report.table import markdown_table
from circuitjax.zoo.planted.models import planted_models
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import MOST_JOBS, check_numbers, check_seed
from experiments.progress import TABLE, counted, tell_next

_TRIALS = flags.DEFINE_integer("trials", 20, "Of every null hypothesis, per network.")
_MODEL_SEEDS = flags.DEFINE_integer("model_seeds", 1, "Seeds the planted models are made from.")
_SEED = flags.DEFINE_integer("seed", 0, "Of everything random.")
_OUT = flags.DEFINE_string("out", None, "Markdown file to write the table to as well.")

_COLUMNS = ("test", "situation", "rate of", "trials", "rejected", "rate", "95% interval")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_numbers(_TRIALS)
    check_numbers(_MODEL_SEEDS, most=MOST_JOBS)
    check_seed(_SEED)
    if _OUT.value:
        require_place(_OUT.value)
    keep_freed_memory()
    cache_compilations()
    planted = [build(seed) for seed in range(_MODEL_SEEDS.value) for build in planted_models()]
    rates = error_rates(
        planted,
        trials=_TRIALS.value,
        seed=_SEED.value,
        say=counted(2 * len(planted)),
    )
    table = markdown_table(_COLUMNS, rates_table(rates)) + "\n"
    if _OUT.value:
        write_bytes(pathlib.Path(_OUT.value), table.encode())
    print(table, end="")
    tell_next(TABLE, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
