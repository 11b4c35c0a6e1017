"""Directories that hold one piece of work each: a run, an audit, a study, a suite.

Before anything is written in a directory, `holds` checks what stands there; `claim` then removes what
is ours and writes a sealed record of what the directory is for. Files of other origin are never removed,
and the directory itself stays: it may be a mount, or held by a lock.
"""

import dataclasses
import importlib.metadata
import pathlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from circuitjax.core.files import cut, read_object, require_place, write_json
from circuitjax.core.policy import backend
from circuitjax.core.records import HASH, canonical, open_sealed, record_hash, seal

__all__ = [
    *("AUDIT", "RANKINGS", "RUN", "STUDY", "SUITE", "UNIQUENESS"),
    *("Kind", "claim", "digest_of", "holds", "stay_in", "versions"),
]

_LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a kind of directory holds.

    Attributes:
      what: its name for people.
      record: file that says what the directory is for.
      form: format of that record.
      files: everything that may lie there besides, also under a temporary name; all else belongs to
        somebody else.
      before: of the version before records were sealed: the file to tell one by, and fields it has.
      replaced: whether `--overwrite` replaces it.
    """

    what: str
    record: str
    form: str
    files: tuple[str, ...]
    before: tuple[str, frozenset[str]]
    replaced: bool = True

    def is_ours(self, name: str) -> bool:
        """Whether a file of this name is one that we write."""
        names = (self.record, *self.files)
        return name in (_LOCK, *names) or name.startswith(tuple(f".{one}." for one in names))


_PICTURES = ("loss_vs_k.png", "kl_vs_k.png", "kl_vs_edges.png", "training.png", "circuit.png")
_DRAWN = tuple(
    f"{name}.{suffix}"
    for name in ("effects", "supersets", "searches", "faithfulness")
    for suffix in ("png", "svg")
)
RUN = Kind(
    "run",
    "run.json",
    "circuitjax-run-2",
    ("report.json", "training", "circuit", "circuit.html", *_PICTURES),
    ("run.json", frozenset({"model", "model_hash", "task", "jobs"})),
)
AUDIT = Kind(
    "audit",
    "asked.json",
    "circuitjax-audit-asked-2",
    ("audit.json", "audit.md", "polished", *_DRAWN),
    ("audit.json", frozenset({"checks", "identity"})),
)
STUDY = Kind(
    "study",
    "study.json",
    "circuitjax-study-2",
    ("observations.jsonl", "carbs.json", "training", "winner", "progress.png", "tune.json"),
    ("study.json", frozenset({"model", "task", "carbs", "space"})),
    replaced=False,
)
SUITE = Kind(
    "suite",
    "suite.json",
    "circuitjax-suite-2",
    (
        *("cells", "units", "shards", "figures"),
        *("suite.csv", "suite.md", "summary.csv", "timings.csv"),
    ),
    ("suite.json", frozenset({"models", "tasks", "methods"})),
    replaced=False,
)
UNIQUENESS = Kind(
    "comparison of circuits",
    "asked.json",
    "circuitjax-uniqueness-asked-1",
    ("uniqueness.json", "uniqueness.md"),
    ("uniqueness.json", frozenset({"apart", "plain"})),
)
RANKINGS = Kind(
    "comparison of rankings",
    "asked.json",
    "circuitjax-rankings-asked-1",
    ("rankings", "graphs", "table.md", "faithfulness.png"),
    ("rankings.json", frozenset({"rankings"})),
    replaced=False,
)


def _record(kind: Kind, identity: Mapping[str, Any]) -> dict[str, Any]:
    return seal({"format": kind.form, **identity})


def digest_of(kind: Kind, identity: Mapping[str, Any]) -> str:
    """Hash of what a directory is for; what is written in it names this."""
    return record_hash(_record(kind, identity))


def _held(kind: Kind, directory: pathlib.Path) -> dict[str, Any] | None:
    """The record there; {} for one of the version before, None where there is none of ours."""
    try:
        return open_sealed(directory / kind.record, kind.form).to_dict()
    except ValueError as error:
        if "install a newer one" in str(error):
            raise
    try:
        old = read_object(directory / kind.before[0])
    except ValueError:
        return None
    return {} if kind.before[1] <= set(old) and "format" not in old else None


def _lost_its_record(kind: Kind, directory: pathlib.Path, names: Sequence[str]) -> bool:
    """Whether what stands there is ours, though the record is gone or cannot be read."""
    return _LOCK in names or any(_is_marked(directory / name) for name in names)


def _is_marked(path: pathlib.Path) -> bool:
    """Whether a file, or something in a folder, says that it was written by us."""
    if path.is_dir():
        marks = ("files.json", "circuit.json", "cell.json", "failed.json")
        return any(next(path.rglob(name), None) for name in marks)
    try:
        with path.open("rb") as file:  # it may have been cut
            return b'"format": "circuitjax-' in file.read(100)
    except OSError:
        return False


def holds(
    kind: Kind, directory: pathlib.Path, identity: Mapping[str, Any], *, overwrite: bool = False
) -> bool:
    """Whether a directory holds this very piece of work; changes nothing.

    Args:
      kind: of the directory.
      directory: which may not exist, or be empty.
      identity: JSON-able; what makes two pieces of work the same.
      overwrite: whether another of its kind may be replaced.

    Raises:
      ValueError: a place where no directory can be written; files that are not ours; a record of a
        newer version; another piece of work that may not be replaced.
    """
    require_place(directory, folder=True)
    if not directory.exists():
        return False
    names = sorted(path.name for path in directory.iterdir())
    if all(name == _LOCK or name.startswith(f".{kind.record}.") for name in names):
        return False
    foreign = next((name for name in names if not kind.is_ours(name)), None)
    held = _held(kind, directory)
    wanted = _record(kind, identity)
    if held == wanted:
        return True
    article = f"{'an' if kind.what[0] in 'aeiou' else 'a'} {kind.what}"
    if foreign is None and held is None and _lost_its_record(kind, directory, names):
        if kind.replaced and overwrite:
            return False
        mend = "--overwrite does it anew" if kind.replaced else "remove the directory"
        raise ValueError(
            f"{directory} holds {article} whose {kind.record} is gone, or was changed: {mend}, or "
            "choose another --out"
        )
    if foreign is not None or held is None:
        shown = foreign or next((n for n in names if n == kind.record), names[-1])
        mend = "even --overwrite leaves them alone; " if kind.replaced else ""
        raise ValueError(
            f"{directory} holds files that are no {kind.what} of ours, such as {shown!r}: "
            f"{mend}choose another --out"
        )
    if kind.replaced and overwrite:
        return False
    mend = ", or replace it with --overwrite" if kind.replaced else ""
    if not held:
        raise ValueError(
            f"{directory} holds {article} of an earlier version: choose another --out{mend}"
        )
    # Hashes differ wherever anything does.
    pairs = {k: ({k: wanted[k]} if k in wanted else {}, {k: held[k]} if k in held else {})
             for k in {**wanted, **held}}  # fmt: skip
    # As JSON, where true is not 1, and a field of null is not one that is missing.
    keys = [key for key, (ours, theirs) in pairs.items() if canonical(ours) != canonical(theirs)]
    key = cut(next((key for key in keys if key != HASH), HASH), 80)[1:-1]
    raise ValueError(
        f"{directory} holds {article} with another {key}: choose another --out, or give the "
        f"{key} it was begun with{mend}"
    )


def claim(kind: Kind, directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Empties a directory of what `holds` has found to be ours, and writes what it is for.

    One that is never replaced is empty by then, but for what others that do the same work wrote since.
    """
    if kind.replaced and directory.exists():
        for path in directory.iterdir():
            # The record goes last, replaced: what is left by a killed process is still known as ours.
            if path.name in (_LOCK, kind.record) or not kind.is_ours(path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    write_json(directory / kind.record, _record(kind, identity))


def stay_in(kind: Kind, directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Before something is written in a directory that was claimed: it may have been moved or removed.

    What is written whole at the end is written in its place, with the record of what it is for; what
    adds to things that are gone stops.

    Raises:
      ValueError: something else stands there by now, or nothing of what is added to.
    """
    if not (directory / kind.record).exists():
        if not kind.replaced:
            raise ValueError(
                f"{directory} was moved or removed while its {kind.what} ran: put it back, and the same "
                "command goes on"
            )
        write_json(directory / kind.record, _record(kind, identity))
    holds(kind, directory, identity)


def versions() -> dict[str, str]:
    """Versions of what computed a result, for its record."""
    found = {
        name: importlib.metadata.version(name)
        for name in ("circuitjax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    }
    return {
        **found,
        "python": platform.python_version(),
        "backend": backend(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
    }
