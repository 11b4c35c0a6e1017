"""Computes a model's mean activations over pretraining text, and stores them with the model.

    python -m experiments.means --model=my_model --corpus=corpus

The model is a directory written by `Model.save`; its means are replaced, its content hash stays. A
corpus of another tokenizer is encoded anew with the model's own.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.model.means import MIN_TOKENS, activation_means
from circuitjax.model.record import Model
from circuitjax.pretrain.packing import Corpus
from circuitjax.pretrain.translate import rows_for
from experiments.command import exit_on_bad_input, run_main

_MODEL = flags.DEFINE_string("model", None, "Path of a model directory.", required=True)
_CORPUS = flags.DEFINE_string("corpus", "corpus", "Folder written by experiments.corpus.")
_TOKENS = flags.DEFINE_integer("tokens", MIN_TOKENS, f"Tokens to average, at least {MIN_TOKENS}.")
_IDIOMS = flags.DEFINE_float("idiom_fraction", 0.75, "Share of idiom rows, in [0, 1].")
_SEED = flags.DEFINE_integer("seed", 1_000_003, "Seed of the rows.")

# Activations of so many nodes and tokens are held at once: a gibibyte.
_MOST_VALUES = 2**28


def _until(tokens: int, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches until they hold so many tokens."""
    for batch in batches:
        yield batch
        tokens -= batch.size
        if tokens <= 0:
            return


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _TOKENS.value < MIN_TOKENS:
        raise ValueError(f"--tokens={_TOKENS.value} is too few; give at least {MIN_TOKENS}")
    keep_freed_memory()
    model = Model.load(pathlib.Path(_MODEL.value))
    corpus = Corpus.open(_CORPUS.value)
    length = model.config.context_length
    size = max(1, min(32, _MOST_VALUES // (length * model.config.num_nodes)))
    rows = rows_for(corpus, model.tokenizer_json, size, length, _SEED.value, _IDIOMS.value)
    rows = _until(_TOKENS.value, rows)
    means, tokens = activation_means(model.config, model.params, rows)
    provenance = {**model.provenance, "mean_tokens": tokens, "mean_seed": _SEED.value}
    dataclasses.replace(model, means=means, provenance=provenance).save(_MODEL.value)
    print(f"{_MODEL.value}: means over {tokens} tokens")


if __name__ == "__main__":
    run_main(main)
