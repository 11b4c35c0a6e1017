"""Computes a model's mean activations over pretraining text, and stores them with the model.

    python -m experiments.means --model=my_model --corpus=corpus

The model is a directory written by `Model.save`; its means are replaced, its content hash stays.
"""

import dataclasses
import pathlib

from absl import app, flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.model.means import MIN_TOKENS, activation_means
from circuitjax.model.record import Model
from circuitjax.pretrain.packing import Corpus
from experiments.command import exit_on_bad_input

_MODEL = flags.DEFINE_string("model", None, "Path of a model directory.", required=True)
_CORPUS = flags.DEFINE_string("corpus", "corpus", "Folder written by experiments.corpus.")
_TOKENS = flags.DEFINE_integer("tokens", MIN_TOKENS, f"Tokens to average, at least {MIN_TOKENS}.")
_IDIOMS = flags.DEFINE_float("idiom_fraction", 0.75, "Share of idiom rows, in [0, 1].")
_SEED = flags.DEFINE_integer("seed", 1_000_003, "Seed of the rows.")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _TOKENS.value < MIN_TOKENS:
        raise ValueError(f"--tokens={_TOKENS.value} is too few; give at least {MIN_TOKENS}")
    keep_freed_memory()
    model = Model.load(pathlib.Path(_MODEL.value))
    corpus = Corpus.open(_CORPUS.value)
    length = model.config.context_length
    rows = (
        corpus.batch(index, 32, length, _SEED.value, _IDIOMS.value)[:, :-1]
        for index in range(-(-_TOKENS.value // (32 * length)))
    )
    means, tokens = activation_means(model.config, model.params, rows)
    provenance = {**model.provenance, "mean_tokens": tokens, "mean_seed": _SEED.value}
    dataclasses.replace(model, means=means, provenance=provenance).save(_MODEL.value)
    print(f"{_MODEL.value}: means over {tokens} tokens")


if __name__ == "__main__":
    app.run(main)
