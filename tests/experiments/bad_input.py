"""What no binary may take: a small world of good and bad files, and flags with what they cannot be."""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from circuitjax.run.suite import Cell, Suite, run_suite
from tests.audit.planted_audit import circuit_of
from tests.experiments.test_consensus_cli import study
from tests.pretrain.synthetic import write_corpus
from tests.prune.planted import PLANTED, SEARCH, jsonl_of_pairs, planted_model
from tests.report.suite_rows import row
from tests.report.test_audit_table import audit, write

RECIPE = {
    "model": {
        "num_layers": 1, "d_model": 8, "num_heads": 1, "d_head": 8, "d_mlp": 8,
        "vocab_size": 2048, "context_length": 8,
    },
    "steps": 3, "batch_size": 4, "length": 8, "density": 0.5, "eval_rows": 32,
}  # fmt: skip

#: What lies where a file is to be read; `folder` is a directory.
FILES = {
    "missing": None,
    "nothing": b"",
    "object.json": b"{}",
    "list.json": b"[]",
    "cut.json": b'{"format": "circuitjax-model-2", "na',
    "newer.json": b'{"format": "circuitjax-model-99", "name": "x"}',
    "deep.json": b"[" * 100_000,
    "nan.json": b'{"steps": NaN}',
    "bytes": b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
    "text.txt": "café\n".encode(),
}
FOLDERS = ("missing", "nothing", "empty", "text.txt", "bytes", "strange")


def world(root: pathlib.Path) -> None:
    """Good and bad files below `root`, which every placeholder %s stands for."""
    model = planted_model()
    model.save(root / "model")
    facts = {"task": "pairs", "search": SEARCH.to_dict()}
    circuit_of(PLANTED, provenance=facts).save(root / "circuit", model)
    (root / "pairs.jsonl").write_text(jsonl_of_pairs(), encoding="utf-8")
    for name, content in FILES.items():
        if content is not None:
            (root / name).write_bytes(content)
            (root / f"{name}l").write_bytes(content)  # as a .jsonl
    (root / "empty").mkdir()
    (root / "folder.jsonl").mkdir()
    (root / "strange").mkdir()  # every record that we read, and none of them good
    for name in (
        *("model.json", "circuit.json", "run.json", "report.json", "config.json", "suite.json"),
        *("manifest.json", "study.json", "observations.jsonl", "audit.json", "tokenizer.json"),
    ):
        (root / "strange" / name).write_text("{}", encoding="utf-8")
    (root / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")
    write_corpus(root / "corpus")
    write(root / "audits/a", audit("a"))
    for number in range(2):
        study(root / "studies" / str(number), 3.0 + number, seed=number)
    units = {"planted/easy/learned": [Cell("planted", "easy")]}

    def run_cell(cell: Cell, directory: pathlib.Path, unit: pathlib.Path) -> dict:
        circuit_of(PLANTED).save(directory / "circuit", model)
        kept = {name: row("easy", 7)[name] for name in ("status", "edges", "random", "note")}
        return kept | {"loss_without_circuit": 1.5, "loss_unpruned": 0.01}

    run_suite(Suite(root / "suite", units, {"model": "planted"}), run_cell)


class Binary(NamedTuple):
    """A binary that would start to work.

    Attributes:
      good: flags that it accepts.
      files, folders: flags that name what it reads.
      out: the flag that names what it writes, and whether that is a folder.
      numbers: flags of numbers.
      names: flags of names.
    """

    good: dict[str, str]
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    out: tuple[str, bool] | None = ("out", True)
    numbers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


_TASK = {"model": "%s/model", "task": "%s/pairs.jsonl", "out": "%s/out"}
_SEARCH = (
    *("target_loss", "target_kl", "target_edges", "target_nodes", "confidence", "steps"),
    *("batch_size", "train_pairs", "validation_pairs", "test_pairs", "num_jobs", "num_seeds"),
    *("k_coef", "lr", "wd", "inv_beta2", "lr_warmup_frac", "heaviside_temp", "aim", "seed"),
    *("init_noise_scale", "init_noise_bias"),
)
_CHOICES = (
    *("grain", "gate", "ablation", "minimise", "control", "loss", "ranking", "sign", "units"),
    *("attribute_to", "warm_start", "preset", "train_under", "hold_under", "threshold"),
    *("calibrate", "selection"),
)
_REAL = frozenset(
    {
        *("k_coef", "lr", "wd", "inv_beta2", "lr_warmup_frac", "heaviside_temp", "aim"),
        *(
            "init_noise_scale",
            "init_noise_bias",
            "target_loss",
            "target_kl",
            "confidence",
            "targets",
        ),
        *("idiom_fraction", "target_sparsity", "code_megabytes", "idiom_megabytes"),
    }
)
_SEEDS = frozenset({"seed", "seeds", "model_seed", "ask_after"})
_HUGE = "1" + "0" * 30


def _numbers(flag: str) -> tuple[str, ...]:
    """What a flag of a number refuses."""
    if flag in _REAL:
        return ("nan", "inf", "abc")
    return ("abc", "nan", "-1", _HUGE) if flag in _SEEDS else ("abc", "-1", "0", _HUGE)


#: Not prune, view and audit, which have tables of their own.
BINARIES = {
    "export": Binary(
        {"circuit": "%s/circuit", "model": "%s/model", "out": "%s/out"},
        folders=("circuit", "model"),
        names=("format",),
    ),
    "audit_table": Binary(
        {"audits": "%s/audits", "out": "%s/out.md"}, folders=("audits",), out=("out", False)
    ),
    "suite": Binary(
        {"models": "%s/model", "tasks": "%s/pairs.jsonl", "out": "%s/out"},
        files=("tasks",),
        folders=("models",),
        numbers=(*(n for n in _SEARCH if n != "target_loss"), "targets", "seeds", "rounds"),
        names=(*_CHOICES, "tasks", "models", "grains", "rankings", "shard"),
    ),
    "tune": Binary(
        _TASK,
        files=("task",),
        folders=("model",),
        numbers=(
            *("steps", "batch_size", "train_pairs", "validation_pairs", "test_pairs", "seed"),
            *("rounds", "fresh_seeds", "num_jobs", "search_pairs", "target_loss", "confidence"),
        ),
        names=("task", "model", "centre", *_CHOICES),
    ),
    "consensus": Binary({"suite": "%s/studies"}, folders=("suite",), out=None, numbers=("seed",)),
    "uniqueness": Binary(
        _TASK,
        files=("task",),
        folders=("model",),
        numbers=(
            *("num_circuits", "target_loss", "confidence", "steps", "batch_size", "train_pairs"),
            *("validation_pairs", "test_pairs", "seed", "lr", "k_coef"),
        ),
        names=("task", "model", "planted", *_CHOICES),
    ),
    "figures": Binary({"suites": "%s/suite", "out": "%s/out"}, folders=("suites",)),
    "import_model": Binary(
        {"from": "snapshot", "path": "%s/strange", "out": "%s/out"},
        folders=("path",),
        names=("from", "name"),
    ),
    "fetch_model": Binary({"out": "%s/out", "cache": "%s/cache"}),
    "means": Binary(
        {"model": "%s/model", "corpus": "%s/missing"},
        folders=("model", "corpus"),
        out=None,
        numbers=("tokens", "idiom_fraction", "seed"),
    ),
    "corpus": Binary(
        {"out": "%s/out", "download_dir": "%s/cache"},
        files=("tokenizer",),
        numbers=("code_megabytes", "idiom_megabytes", "seed"),
    ),
    "pretrain": Binary(
        {"recipe": "%s/recipe.json", "corpus": "%s/corpus", "out": "%s/out"},
        files=("recipe",),
        folders=("corpus",),
        numbers=("steps", "seed"),
    ),
    "package_model": Binary(
        {"run": "%s/strange", "corpus": "%s/corpus", "name": "x", "out": "%s/out"},
        folders=("run", "corpus"),
        numbers=("mean_tokens",),
    ),
    "ground_truth": Binary(
        {"programs": "parity", "planted": "false", "out": "%s/out.md"},
        files=("programs",),
        out=("out", False),
        numbers=("num_seeds", "model_seed"),
        names=("programs", "grains", "ablations", "program_grains", "program_ablations"),
    ),
    "ranking_truth": Binary(
        {"out": "%s/out.md"},
        out=("out", False),
        numbers=("models", "pairs", "model_seed", "seed"),
        names=("attribute_to",),
    ),
    "error_rates": Binary(
        {"out": "%s/out.md"}, out=("out", False), numbers=("trials", "model_seeds", "seed")
    ),
    "edge_rankings": Binary(
        {**_TASK, "rankings": "random"},
        files=("task", "rankings"),
        folders=("model",),
        numbers=(
            *("train_examples", "test_examples", "points", "steps", "batch_size"),
            *("target_sparsity", "seed"),
        ),
        names=("task", "model", "rankings", "ablation", "warm_start", "attribute_to"),
    ),
    "bench": Binary(
        {}, out=None, numbers=("chunk", "repeats"),
        names=("workloads", "measurements", "abs_top_k", "dtype"),
    ),
    "bench_carbs": Binary(
        {"out": "%s/out.json"},
        out=("out", False),
        numbers=("num_seeds", "rounds", "processes", "ask_after"),
        names=("function", "tuner"),
    ),
    "bench_circuit": Binary(
        {"circuits": "%s/circuit", "model": "%s/model", "task": "%s/pairs.jsonl"},
        files=("task",),
        folders=("circuits", "model"),
        out=None,
        numbers=("pairs", "repeats"),
        names=("task", "model"),
    ),
    "bench_edges": Binary(
        {}, out=None, numbers=("chunk", "repeats", "steps"), names=("sizes", "measurements")
    ),
    "device_memory": Binary(
        {}, files=("config",), out=None, numbers=("devices", "batch_size", "length"), names=("mesh",)
    ),
    "bench_rows": Binary(
        {"tasks": "%s/pairs.jsonl", "model": "%s/model"},
        files=("tasks",),
        folders=("model",),
        out=None,
        numbers=("batch_size", "jobs", "chunk", "repeats"),
        names=("tasks", "model"),
    ),
    "bench_weights": Binary(
        {}, out=None, numbers=("nonzeros", "jobs", "layers", "d_model", "chunk", "repeats")
    ),
}  # fmt: skip


#: What looks bad and is not, for reasons of its own.
TAKEN = {
    ("import_model", "name", "nonsense"),  # any word names a model
    ("import_model", "name", "café"),
    ("import_model", "name", "a,b"),
    ("import_model", "name", "../x"),
    ("means", "corpus", "%s/strange"),  # a folder of text, too short
    ("suite", "seeds", "nan"),
}


def calls(name: str) -> Iterator[tuple[str, str, list[str]]]:
    """(flag, value, arguments) of all that is tried of a binary."""
    one = BINARIES[name]
    tried: list[tuple[str, str]] = []
    for flag in one.files:
        # A task is known by its ending; a file by another name is a name that is unknown.
        ends = "l" if flag in ("task", "tasks") else ""
        tried += [(flag, f"%s/{file}{ends}") for file in FILES if file.endswith(".json")]
        tried += [(flag, "%s/missing.jsonl"), (flag, "%s/folder.jsonl"), (flag, "%s/bytes")]
    for flag in one.folders:
        tried += [(flag, f"%s/{folder}") for folder in FOLDERS]
        tried += [(flag, "/proc/nonsense"), (flag, "x" * 5000)]
    if one.out is not None:
        flag, folder = one.out
        tried += [(flag, "%s/text.txt/below"), (flag, "/proc/nonsense"), (flag, "/dev/null/x")]
        tried += [(flag, "%s/text.txt" if folder else "%s/empty"), (flag, "x" * 300)]
    tried += [(flag, value) for flag in one.numbers for value in _numbers(flag)]
    tried += [(flag, value) for flag in one.names for value in ("nonsense", "café", "a,b", "../x")]
    for flag, value in tried:
        if (name, flag, value) not in TAKEN:
            yield flag, value, [f"--{k}={v}" for k, v in {**one.good, flag: value}.items()]
