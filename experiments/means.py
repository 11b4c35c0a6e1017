"""Computes a model's mean activations over text, and stores them with the model.

    python -m experiments.means --model=my_model --corpus=corpus
    python -m experiments.means --model=my_model --corpus=some/folder/of/text

The model is a directory written by `Model.save`; its means are replaced, its content hash stays. A
corpus of another tokenizer is encoded anew with the model's own. Of any other folder all files of text
count, in a random order, until there are tokens enough; the model's record says which folder it was.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

from circuitjax.core.files import require_place
from circuitjax.core.host import keep_freed_memory
from circuitjax.model.means import MIN_TOKENS, activation_means
from circuitjax.model.record import Model
from circuitjax.pretrain.folder import text_files, text_rows
from circuitjax.pretrain.packing import Corpus
from circuitjax.pretrain.translate import rows_for
from experiments.command import command, exit_on_bad_input, run_main
from experiments.limits import check_numbers, check_seed
from experiments.progress import tell_next

_MODEL = flags.DEFINE_string("model", None, "Path of a model directory.", required=True)
_CORPUS = flags.DEFINE_string(
    "corpus", "corpus", "Folder written by experiments.corpus, or any of text."
)
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
    check_numbers(_TOKENS, least=MIN_TOKENS)
    check_numbers(_IDIOMS, least=0, most=1)
    check_seed(_SEED)
    require_place(_MODEL.value, folder=True)
    keep_freed_memory()
    model = Model.load(pathlib.Path(_MODEL.value))
    fit = max(_MOST_VALUES // model.config.num_nodes, 2)  # tokens at a time
    length = min(model.config.context_length, fit)
    size = max(1, min(32, fit // length))
    folder = pathlib.Path(_CORPUS.value)
    if (folder / "manifest.json").is_file() or not folder.is_dir():
        corpus = Corpus.open(folder)
        rows = rows_for(corpus, model.tokenizer_json, size, length, _SEED.value, _IDIOMS.value)
    else:
        rows = text_rows(text_files(folder), model.tokenizer_json, size, length, _SEED.value)
    rows = _until(_TOKENS.value, rows)
    means, tokens = activation_means(model.config, model.params, rows)
    told = {"mean_tokens": tokens, "mean_seed": _SEED.value, "mean_text": folder.resolve().name}
    provenance = {**model.provenance, **told}
    dataclasses.replace(model, means=means, provenance=provenance).save(_MODEL.value)
    print(f"{_MODEL.value}: means over {tokens} tokens")
    tell_next(f"{command('prune', model=_MODEL.value)} --task=TASK")


if __name__ == "__main__":
    run_main(main)
