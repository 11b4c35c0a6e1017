"""Turns another library's checkpoint into a model directory, for the --model of every binary.

    python -m experiments.import_model --from=snapshot --path=pythia_snapshot --out=my_pythia
    python -m experiments.import_model --from=gguf --path=model.gguf --out=my_llama
    python -m experiments.import_model --from=openai --path=csp --tokenizer=tinypython --out=my_csp

snapshot: a folder as Hugging Face has them (config.json; model.safetensors, its shards with their index,
or pytorch_model.bin; tokenizer.json), of a family that is known: gpt2, gpt_neox, llama, mistral, qwen2,
qwen3, gemma2, gemma3_text; gpt2 is an older word for the same. gguf: one file of llama.cpp's format.
A text begins with the token that the tokenizer says, or with --bos. openai: a released weight-sparse
model (beeg_config.json, final_model.pt), its tokenizer (encoder.json, vocab.bpe) in the same folder or
in --tokenizer. tracr: a compiled program, PROGRAM.npz beside PROGRAM.json. Mean activations are then
computed by experiments.means. The same command again changes nothing; a directory that holds
anything else is left alone.
"""

import pathlib

from absl import flags

from circuitjax.core.files import require_place
from circuitjax.importers.gguf_file import import_gguf
from circuitjax.importers.openai import import_openai
from circuitjax.importers.snapshot import import_snapshot
from circuitjax.importers.tracr import load_tracr
from circuitjax.model.record import Model
from experiments.command import command, exit_on_bad_input, run_main
from experiments.model_directory import describe, write_model
from experiments.progress import tell_next

_FROM = flags.DEFINE_enum(
    "from", None, ["snapshot", "gguf", "gpt2", "openai", "tracr"], "Kind.", required=True
)
_PATH = flags.DEFINE_string("path", None, "Folder (gguf, tracr: file) to read.", required=True)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Folder of encoder.json and vocab.bpe (openai). Default: --path."
)
_BOS = flags.DEFINE_string("bos", None, "Token to begin texts with (snapshot, gguf).")
_OUT = flags.DEFINE_string("out", None, "Model directory to write. Default: models/<name>.")
_NAME = flags.DEFINE_string("name", None, "Name of the model. Default: the checkpoint's own.")


def _read() -> Model:
    path, name = _PATH.value, _NAME.value
    if _BOS.value is not None and _FROM.value in ("openai", "tracr"):
        raise ValueError(f"--bos={_BOS.value} has no effect with --from={_FROM.value}")
    if _FROM.value == "openai":
        return import_openai(path, name, _TOKENIZER.value)
    if _TOKENIZER.value is not None:
        raise ValueError(f"--tokenizer={_TOKENIZER.value} has no effect with --from={_FROM.value}")
    if _FROM.value == "tracr":
        return load_tracr(path, name).model
    read = import_gguf if _FROM.value == "gguf" else import_snapshot
    return read(path, name, _BOS.value)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    if _NAME.value is not None and not _NAME.value.strip():
        raise ValueError("--name is empty: leave it out or name the model")
    if _OUT.value is not None:
        require_place(_OUT.value, folder=True)
    model = _read()
    shown = _OUT.value or f"models/{pathlib.Path(model.name).name}"
    written = write_model(model, pathlib.Path(shown).absolute())
    print(f"{shown}: {describe(model)}" + ("" if written else " (already there)"))
    tell_next(
        f"{command('prune', model=shown)} --task=TASK --grain=edges",
        f"{command('means', model=shown)} --corpus=FOLDER  (for nodes and weights)",
    )


if __name__ == "__main__":
    run_main(main)
