"""Small pieces of work that a campaign interrupts: every binary that writes, on planted models.

A work is a command line; what it leaves is compared by `facts`: every file, but for what a clock
measured and for the names that Orbax draws at random.
"""

import hashlib
import importlib
import json
import pathlib
import re
import sys
from typing import Any

import jax
from absl import flags

from circuitjax.core.checkpoints import load_arrays
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.train import init_state
from tests.audit.planted_audit import circuit_of
from tests.experiments import drive
from tests.pretrain.synthetic import write_corpus
from tests.prune.planted import PLANTED, SEARCH, jsonl_of_pairs, planted_model

__all__ = ["WORKS", "arrays", "differences", "facts", "keep_programs", "prepare", "run"]

_QUICK = ("--steps=75", "--batch_size=8", "--ablation=zero", "--lr=0.02")
_PRUNE = ("--model={0}/model", "--task={0}/good.jsonl", *_QUICK)

#: {name: (binary, its flags but for --out)}; {0} is the folder that `prepare` fills.
WORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nodes": ("prune", (*_PRUNE, "--k_coef=0.01", "--control=count")),
    "weights": ("prune", (*_PRUNE, "--grain=weights", "--k_coef=0.01", "--control=count")),
    "edges": ("prune", (*_PRUNE, "--grain=edges", "--num_jobs=1")),
    "suite": (
        "suite",
        (
            *("--models={0}/model", "--tasks={0}/good.jsonl", *_QUICK, "--k_coef=0.01"),
            *("--control=count", "--rankings=learned,random", "--targets=0.15,0.4"),
        ),
    ),
    "tune": ("tune", (*_PRUNE[:2], "--rounds=2", "--num_jobs=3", "--fresh_seeds=1",
                      "--steps=75", "--batch_size=8")),
    "audit": (
        "audit",
        (
            *("--circuit={0}/circuit", "--model={0}/model", "--task={0}/good.jsonl"),
            *("--nosearch", "--random_sets=20"),
        ),
    ),
    "pretrain": ("pretrain", ("--recipe={0}/recipe.json", "--corpus={0}/corpus")),
}  # fmt: skip
_RECIPE = {
    "model": {
        "num_layers": 1, "d_model": 8, "num_heads": 1, "d_head": 8, "d_mlp": 8,
        "vocab_size": 2048, "context_length": 8,
    },
    "steps": 6, "batch_size": 4, "length": 8, "density": 0.5, "eval_rows": 32, "checkpoint_every": 1,
    "eval_every": 3,
}  # fmt: skip


def prepare(folder: pathlib.Path) -> None:
    """Writes what the works read: a model, a task, a circuit, a recipe and its corpus."""
    model = planted_model()
    model.save(folder / "model")
    facts_of_it = {"task": "good", "search": SEARCH.to_dict()}
    circuit_of(PLANTED, provenance=facts_of_it).save(folder / "circuit", model)
    (folder / "good.jsonl").write_text(jsonl_of_pairs())
    (folder / "recipe.json").write_text(json.dumps(_RECIPE))
    write_corpus(folder / "corpus")


def run(name: str, folder: pathlib.Path, out: pathlib.Path, *more: str) -> int:
    """Does a work, or what is left of it, in this process; its exit code."""
    binary, arguments = WORKS[name]
    module = _fresh(binary)
    given = [argument.format(folder) for argument in arguments]
    try:
        module.main(flags.FLAGS([binary, *given, f"--out={out}", *more]))
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        flags.FLAGS.unparse_flags()
    return 0


def _fresh(binary: str) -> Any:
    """The binary's module, imported anew where another was there before: flags are one binary's."""
    name = f"experiments.{binary}"
    loaded = {module for module in sys.modules if module.partition(".")[0] == "experiments"}
    if name in loaded:
        return sys.modules[name]
    if loaded:
        return drive.fresh(binary)
    return importlib.import_module(name)


def keep_programs(folder: pathlib.Path) -> None:
    """Has JAX keep every compiled program in a folder, whatever a binary says of its own."""
    from circuitjax.core import host

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    host.cache_compilations = lambda directory=None: None


_ORBAX = ("commit_success.txt", "files.json", "orbax.checkpoint", ".ocdbt", "_METADATA")
_CLOCK = re.compile(r"(seconds.*|record_hash|.*_seconds)")
_PICTURES = (".png", ".svg", ".pdf")


def facts(out: pathlib.Path) -> dict[str, Any]:
    """{path: content} of all that a work left."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or ".lock" in path.name:
            continue
        if "/ocdbt." in name or "/d/" in name or name.endswith(_ORBAX):
            continue  # of arrays, which are compared by their hashes, in the records
        if "/events/" in f"/{name}" or "/timings.csv" in f"/{name}":
            found[re.sub(r"[0-9]{6,}.*", "", name)] = None
        elif name.endswith(_PICTURES):
            found[name] = path.stat().st_size > 0
        elif name.endswith(".json"):
            found[name] = _timeless(json.loads(path.read_text()))
        elif name.endswith(".jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = _timeless(rows)
        elif name.endswith(".md"):
            found[name] = [
                line for line in path.read_text().splitlines() if "evidence " not in line
            ]
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _CLOCK.fullmatch(k)}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def arrays(out: pathlib.Path) -> dict[str, list[bytes]]:
    """The arrays of what `pretrain` left, which no record names by hash."""
    if not (out / "params").is_dir():
        return {}
    state = init_state(PretrainConfig.from_dict(_RECIPE))
    leaves = jax.tree.leaves(load_arrays(out / "params", state.params))
    return {"params": [leaf.tobytes() for leaf in leaves]}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The files, and the first field in each, in which two outcomes differ."""
    return [
        f"{name}: {_first(ours.get(name, '(missing)'), theirs.get(name, '(missing)'))}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, "(missing)") != theirs.get(name, "(missing)")
    ]


def _first(ours: Any, theirs: Any) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**ours, **theirs}:
            if ours.get(key) != theirs.get(key):
                return f"{key}: {_first(ours.get(key), theirs.get(key))}"
    return f"{str(ours)[:200]} against {str(theirs)[:200]}"
