"""Builds the pretraining corpus: real Python and generated idioms, as token streams in a folder.

python -m experiments.corpus --out=corpus --code_megabytes=40 --idiom_megabytes=80
"""

import dataclasses
import hashlib
import pathlib
import time

from absl import flags

from circuitjax.core.files import require_place
from circuitjax.pretrain import bpe, corpus
from experiments.command import command, exit_on_bad_input, run_main
from experiments.limits import check_seed
from experiments.progress import say, tell_next

_OUT = flags.DEFINE_string("out", "corpus", "Folder to write.")
_CODE = flags.DEFINE_float("code_megabytes", 40.0, "Real source, 10^6 characters.")
_IDIOMS = flags.DEFINE_float("idiom_megabytes", 80.0, "Generated text, 10^6 characters.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of every choice.")
_DOWNLOADS = flags.DEFINE_string(
    "download_dir",
    str(pathlib.Path.home() / ".cache" / "circuitjax" / "wheels"),
    "Where downloaded packages are kept.",
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", "", "A tokenizer.json to use unchanged; else one is trained."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a corpus built with another config.")

__all__ = ["main"]


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    _build()


def _build() -> None:
    check_seed(_SEED)
    tokenizer = bpe.load(_TOKENIZER.value) if _TOKENIZER.value else None
    used = (
        hashlib.sha256(pathlib.Path(_TOKENIZER.value).read_bytes()).hexdigest() if tokenizer else ""
    )
    config = corpus.CorpusConfig(
        code_megabytes=_CODE.value,
        idiom_megabytes=_IDIOMS.value,
        seed=_SEED.value,
        tokenizer_sha256=used,
    )
    out = pathlib.Path(_OUT.value)
    for place in (out, _DOWNLOADS.value):
        require_place(place, folder=True)
    finished = corpus.finished_config(out)
    if finished == dataclasses.asdict(config):
        print(f"{out} is finished with this config; nothing to do")
        _tell(out)
        return
    if finished is not None and not _OVERWRITE.value:
        raise ValueError(
            f"{out} holds a corpus of another config: pass --overwrite or another --out"
        )
    began = time.monotonic()

    def report(line: str) -> None:
        say(f"[{time.monotonic() - began:6.1f} s] {line}")

    (out / "DONE").unlink(missing_ok=True)
    manifest = corpus.build(config, out, pathlib.Path(_DOWNLOADS.value), report, tokenizer)
    report(f"not one token: {manifest['not_one_token']}")
    (out / "DONE").touch()
    print(f"{out}: finished in {time.monotonic() - began:.0f} s")
    _tell(out)


def _tell(out: pathlib.Path) -> None:
    recipe = "experiments/recipes/tiny-python.json"
    tell_next(command("pretrain", recipe=recipe, corpus=out, out="runs/pretrain/tiny-python"))


if __name__ == "__main__":
    run_main(main)
