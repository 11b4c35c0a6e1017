r"""Trains a (weight-sparse) model on a corpus.

    python -m experiments.pretrain --recipe=experiments/recipes/tiny-python.json \
        --corpus=corpus --out=runs/pretrain/tiny-python

The same command again resumes an unfinished run from its last checkpoint. On a GPU or TPU the same
command uses every device (rows of the batch are spread over them).
"""

import pathlib

from absl import flags

from circuitjax.core.checkpoints import save_arrays
from circuitjax.core.files import read_object, require_place
from circuitjax.core.host import keep_freed_memory
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.packing import Corpus
from circuitjax.pretrain.train import train
from experiments.command import command, exit_on_bad_input, run_main
from experiments.limits import check_numbers, check_seed
from experiments.progress import bar, tell_next

_RECIPE = flags.DEFINE_string("recipe", None, "JSON file of a PretrainConfig.", required=True)
_CORPUS = flags.DEFINE_string("corpus", "corpus", "Folder written by experiments.corpus.")
_OUT = flags.DEFINE_string("out", None, "Folder of the run.", required=True)
_STEPS = flags.DEFINE_integer("steps", None, "Overrides the recipe's number of steps.")
_SEED = flags.DEFINE_integer("seed", None, "Overrides the recipe's seed.")


def _read_recipe(path: str) -> PretrainConfig:
    fields = read_object(path)
    for name, value in (("steps", _STEPS.value), ("seed", _SEED.value)):
        if value is not None:
            fields[name] = value
    try:
        return PretrainConfig.from_dict(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_numbers(_STEPS)
    check_seed(_SEED)
    require_place(_OUT.value, folder=True)
    keep_freed_memory()
    config = _read_recipe(_RECIPE.value)
    corpus = Corpus.open(_CORPUS.value)
    with bar(config.steps, "step", leave=True) as shown:

        def report(step: int, metrics: dict[str, float]) -> None:
            shown.update(step - shown.n)
            told = {k: f"{v:.3f}" for k, v in metrics.items() if "gradient" not in k}
            shown.set_postfix(told, refresh=False)

        params = train(config, corpus, _OUT.value, report=report)
    save_arrays(pathlib.Path(_OUT.value) / "params", params)
    print(f"{_OUT.value}: trained for {config.steps} steps")
    packaged = command("package_model", run=_OUT.value, corpus=_CORPUS.value)
    tell_next(f"{packaged} --name=NAME --out=FOLDER")


if __name__ == "__main__":
    run_main(main)
