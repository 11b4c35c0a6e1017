"""A suite: many cells, each done once, by one process or by several that share a directory.

    cells -> units -> the units of a shard -> run_cell, cell by cell -> outcomes of all cells

A cell is one question: the circuit of a task in a model, at a grain, to a target. A unit is what one
process had better do: cells that share a training, or start from each other's circuits, in the order of
their work. What a cell takes is `run_cell`'s business, also how it resumes; here stands who does which
cell, what is finished, and what has failed.

suite.json                what the directory is for; written first
cells/<key>/cell.json     the cell's record; written last, so that its presence means "finished"
cells/<key>/failed.json   why the cell failed
cells/<key>/run/          what `run_cell` keeps
units/<unit>/             what cells of a unit share, until they are finished
shards/<i>_of_<n>/        held by the process that does the shard

Nobody serves the directory: a shard is a function of the list of units, and locks are the file system's.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from circuitjax.core.files import cut, read_object, write_json
from circuitjax.core.host import alone_in, disk_gave_out
from circuitjax.core.records import Fields, open_sealed, seal
from circuitjax.core.schema import from_json
from circuitjax.run.directory import SUITE, claim, holds, stay_in

__all__ = [
    "Cell",
    "Outcome",
    "Shard",
    "Suite",
    "outcome_of",
    "outcomes",
    "read_cell",
    "run_suite",
]

_CELL = "circuitjax-cell-2"
_AGAIN = "remove it, and the same command does the cell again"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One question.

    Attributes:
      model, task: names.
      grain: where gates sit.
      ranking: how gates are ranked.
      target: task loss to reach, in nats; None: another aim, the same for all cells.
      seed: of gates and batches.
    """

    model: str
    task: str
    grain: str = "nodes"
    ranking: str = "learned"
    target: float | None = 0.15
    seed: int = 0

    @property
    def key(self) -> str:
        """Its folder below `cells`."""
        how = self.grain if self.ranking == "learned" else f"{self.grain}-{self.ranking}"
        aim = "own" if self.target is None else f"{self.target:g}"
        return f"{self.model}/{self.task}/{how}/target_{aim}/seed_{self.seed}"


@dataclasses.dataclass(frozen=True)
class Shard:
    """The index-th of `count` parts, from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard {self.index}/{self.count} does not exist: of {self.count} shards the first is "
                f"1/{self.count}, the last {self.count}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `i/n`.

        Raises:
          ValueError: not of that form, or i is not in 1 to n.
        """
        parts = text.split("/")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(f"shard {text!r} is not of the form i/n, such as 1/2")
        index, count = map(int, parts)
        if count < 1:
            raise ValueError(f"shard {text!r}: there must be at least 1 shard")
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, units: Sequence[str]) -> tuple[str, ...]:
        """Its units: every count-th, so that neighbours, which cost about alike, are spread."""
        return tuple(units[self.index - 1 :: self.count])


class Outcome(NamedTuple):
    """How a cell stands; without record and error it is not finished.

    Attributes:
      cell: the question.
      record: what `run_cell` answered.
      error: in one line, why it failed.
      seconds: of the process that finished it, for this cell.
    """

    cell: Cell
    record: Mapping[str, Any] | None = None
    error: str | None = None
    seconds: float | None = None

    @property
    def settled(self) -> bool:
        """Finished or failed."""
        return self.record is not None or self.error is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Suite:
    """What to do and where.

    Attributes:
      directory: of the suite.
      units: {name: its cells in the order of their work}, in the order of the table.
      identity: JSON-able; what makes two suites the same suite.
    """

    directory: pathlib.Path
    units: Mapping[str, Sequence[Cell]]
    identity: Mapping[str, Any]

    def __post_init__(self) -> None:
        keys = Counter(cell.key for cell in self.cells)
        twice = next((key for key, count in keys.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"the suite asks for {twice} twice: name everything once")
        if not keys:
            raise ValueError("the suite has no cells: name at least one of everything")

    @property
    def cells(self) -> list[Cell]:
        """All, in the order of the table."""
        return [cell for cells in self.units.values() for cell in cells]

    def run_directory(self, cell: Cell) -> pathlib.Path:
        """Where `run_cell` keeps a cell's work."""
        return self.directory / "cells" / cell.key / "run"


RunCell = Callable[[Cell, pathlib.Path, pathlib.Path], Mapping[str, Any]]


def read_cell(path: pathlib.Path) -> Outcome:
    """A finished cell from its `cell.json`.

    Raises:
      ValueError: a record that was changed, or is of another version.
    """
    held = open_sealed(path, _CELL)
    cell = from_json(Cell, held.object("cell").to_dict(), str(path))
    record = held.object("record").to_dict()
    return Outcome(cell, record=record, seconds=held.number("seconds"))


def outcome_of(suite: Suite, cell: Cell) -> Outcome:
    """How a cell stands on disk.

    Raises:
      ValueError: a record that was changed, or that is another cell's.
    """
    folder = suite.directory / "cells" / cell.key
    if (folder / "cell.json").exists():
        found = read_cell(folder / "cell.json")
        if found.cell != cell:
            raise ValueError(
                f"{folder / 'cell.json'} is of another cell, {cut(found.cell.key)}: {_AGAIN}"
            )
        return found
    failed = folder / "failed.json"
    if failed.exists():
        return Outcome(cell, error=Fields(read_object(failed), str(failed)).text("error"))
    return Outcome(cell)


def outcomes(suite: Suite) -> list[Outcome]:
    """How every cell stands, whoever did it, in the order of the table."""
    return [outcome_of(suite, cell) for cell in suite.cells]


def run_suite(
    suite: Suite,
    run_cell: RunCell,
    shard: Shard = Shard(),  # noqa: B008  # immutable
    *,
    retry: bool = False,
    say: Callable[[str], None] = lambda line: None,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Does what is left of a shard.

    Args:
      suite: what to do.
      run_cell: does a cell, or what is left of it, in (its own directory, its unit's directory), and
        returns its JSON-able record. Any exception it raises is that cell's failure, unless the disk
        gave out: that ends the suite, and the same command goes on once it is mended.
      shard: which part is this process's.
      retry: do cells that failed once more.
      say: called with lines for people.
      done: called with each cell of the shard once it is settled.

    Returns:
      How all cells of the suite stand, those of other shards too.

    Raises:
      ValueError: a directory that holds something else, or a shard that another process does.
    """
    if not holds(SUITE, suite.directory, suite.identity):
        claim(SUITE, suite.directory, suite.identity)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                alone_in(suite.directory / "shards" / f"{shard.index}_of_{shard.count}")
            )
        except ValueError:
            raise ValueError(
                f"another process does shard {shard} of {suite.directory}: wait for it, or do another "
                "shard"
            ) from None
        for unit in shard.of(list(suite.units)):
            _run_unit(suite, unit, run_cell, retry, say, done)
    return outcomes(suite)


def _run_unit(
    suite: Suite,
    unit: str,
    run_cell: RunCell,
    retry: bool,
    say: Callable[[str], None],
    done: Callable[[Outcome], None],
) -> None:
    cells, folder = suite.units[unit], suite.directory / "units" / unit
    standing = [outcome_of(suite, cell) for cell in cells]
    if all(one.record is not None or (one.settled and not retry) for one in standing):
        for one in standing:
            done(one)
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone_in(folder))
        except ValueError:
            say(f"{unit}: another process is at it, left to it")
            return
        for cell in cells:
            done(_run_one(suite, cell, run_cell, folder, retry, say))
        if all(outcome_of(suite, cell).record is not None for cell in cells):
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)


def _run_one(
    suite: Suite,
    cell: Cell,
    run_cell: RunCell,
    shared: pathlib.Path,
    retry: bool,
    say: Callable[[str], None],
) -> Outcome:
    found = outcome_of(suite, cell)
    if found.record is not None or (found.error is not None and not retry):
        return found
    folder = suite.directory / "cells" / cell.key
    started = time.perf_counter()
    try:
        record = dict(run_cell(cell, suite.run_directory(cell), shared))
        stay_in(SUITE, suite.directory, suite.identity)
        seconds = round(time.perf_counter() - started, 2)
        asked = dataclasses.asdict(cell)
        held = {"format": _CELL, "cell": asked, "record": record, "seconds": seconds}
        write_json(folder / "cell.json", seal(held))
    except Exception as error:  # whatever else it is, it is this cell's; the others go on
        if disk_gave_out(error):
            raise
        line = " ".join(f"{type(error).__name__}: {error}".split())
        trace = traceback.format_exc().splitlines()
        write_json(folder / "failed.json", {"error": line, "traceback": trace})
        say(f"{cell.key} failed: {line}")
    else:
        (folder / "failed.json").unlink(missing_ok=True)
    return outcome_of(suite, cell)
