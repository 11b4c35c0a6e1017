"""One setting for many tasks, from the studies of all of them.

    python -m experiments.suite --rounds=2 --centre=default
    python -m experiments.consensus --suite=runs/suite/tiny-python-tuned

Reads every run of every study of the suite (or of directories made by experiments.tune), fits one
process to how much better than its task's median each was, and prints the setting expected to do best,
as flags for experiments.prune. Nothing is trained.
"""

import pathlib

from absl import flags

from circuitjax.core.records import open_sealed
from circuitjax.run.consensus import consensus
from circuitjax.run.directory import STUDY
from circuitjax.run.observations import read_rounds
from circuitjax.tune.space import Space
from experiments.command import command, exit_on_bad_input, run_main
from experiments.limits import check_seed
from experiments.progress import tell_next

_SUITE = flags.DEFINE_string(
    "suite", None, "Directory of a tuned suite, or one of several studies."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the candidates.")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _SUITE.value is None:
        raise ValueError("--suite is missing: name the directory of a tuned suite")
    check_seed(_SEED)
    files = sorted(pathlib.Path(_SUITE.value).rglob("observations.jsonl"))
    if not files:
        raise ValueError(f"--suite={_SUITE.value} holds no study: run experiments.suite --rounds=3")
    identities = [open_sealed(file.parent / STUDY.record, STUDY.form).to_dict() for file in files]
    first = identities[0]
    for file, identity in zip(files, identities, strict=True):
        for name in ("model_hash", "space", "search"):
            if identity[name] != first[name]:
                raise ValueError(
                    f"{file.parent} is a study with another {name} than {files[0].parent}: "
                    "name a directory whose studies differ in the task only"
                )
    studies = [
        [row for rows in read_rounds(file, identity["jobs"], mend=False) for row in rows]
        for file, identity in zip(files, identities, strict=True)
    ]
    found = consensus(Space.from_dict(first["space"]), studies, _SEED.value)
    print(f"{found.tasks} tasks, {found.runs} runs of {first['search']['train']['steps']} steps")
    print(f"  edges, multiple of the median run's  {found.factor:.2f}")
    print(f"  the same at the centre               {found.centre_factor:.2f}")
    print(f"  deviation of its logarithm           {found.deviation:.2f}")
    given = " ".join(f"--{name}={value:.3g}" for name, value in found.params.items())
    print(given)
    tell_next(f"{command('prune')} --task=TASK {given}")


if __name__ == "__main__":
    run_main(main)
