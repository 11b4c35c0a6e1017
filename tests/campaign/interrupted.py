"""Interrupts works in one process and finishes them.

    python -m tests.campaign.interrupted FOLDER PART WORK...

    events      every state that a kill at a file event leaves is gone on from, and ends as it should
    events:N    about N of these states alone, evenly chosen
    disks       the work on ten disks too small for it, then on one that is large enough

One process, since to start JAX and to compile takes ten times as long as a work. Prints a JSON line for
each work: {"part", "work", "cases", "faults": [text], "seconds", "peak_kib"}.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.campaign import works
from tests.campaign.states import Recorder

__all__ = ["disks", "events", "main"]

SIZES = 10
OVERWRITTEN = 6  # every so many states another run replaces a copy
_REPLACED = ("nodes", "weights", "edges", "audit")  # have --overwrite


def told(name: str, folder: pathlib.Path, out: pathlib.Path, *more: str) -> tuple[int, str]:
    """(exit code, stderr) of a work; a traceback is code -1."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            return works.run(name, folder, out, *more), said.getvalue()
        except BaseException as error:
            return -1, f"traceback: {type(error).__name__}: {error}"


def _outcome(out: pathlib.Path) -> dict[str, Any]:
    return works.facts(out) | works.arrays(out)


def _compared(
    name: str, folder: pathlib.Path, out: pathlib.Path, wanted: dict[str, Any], *more: str
) -> str | None:
    """Does what is left in a directory; what is wrong with the end of it, if anything."""
    code, err = told(name, folder, out, *more)
    if code != 0:
        return f"ends with {code}: {err[-400:]}"
    found = works.differences(_outcome(out), wanted)
    return f"ends otherwise: {found[:3]}" if found else None


def events(name: str, folder: pathlib.Path, most: int | None = None) -> tuple[int, list[str]]:
    """(states, faults) of a work that is killed at every file event of it."""
    wanted, other = {}, {}
    for seed, into in ((0, wanted), (1, other)):
        more = [f"--seed={seed}"] if name in _REPLACED else []
        if seed and not more:
            continue
        out = folder / f"whole-{name}-{seed}"
        code, err = told(name, folder, out, *more)
        assert code == 0, (name, err)
        into |= _outcome(out)
    recorder = Recorder(folder / f"watched-{name}", folder / f"states-{name}")
    with recorder.recording():
        code, err = told(name, folder, folder / f"watched-{name}")
    assert code == 0, (name, err)
    faults = [f"{name} watched: {d}" for d in
              works.differences(_outcome(folder / f"watched-{name}"), wanted)]  # fmt: skip
    states = (
        recorder.states if most is None else recorder.states[:: -(-len(recorder.states) // most)]
    )
    for number, state in enumerate(states):
        names = (p.relative_to(state).as_posix() for p in state.rglob("*"))
        listing = sorted(n for n in names if "/state/" not in n and "/arrays/" not in n)[:30]
        copy = folder / f"copy-{name}"
        if name in _REPLACED and number % OVERWRITTEN == 0:
            shutil.copytree(state, copy)
            fault = _compared(name, folder, copy, other, "--seed=1", "--overwrite")
            if fault:
                faults.append(f"{name} {state.name} replaced {fault}; was {listing}")
            shutil.rmtree(copy)
        fault = _compared(name, folder, state, wanted)
        if fault is None and number % OVERWRITTEN == 1:
            fault = _compared(name, folder, state, wanted)
            fault = fault and f"done again {fault}"
        if fault:
            faults.append(f"{name} {state.name} {fault}; was {listing}")
        recorder.forget(state)
    return len(states), faults


@contextlib.contextmanager
def _disk(place: pathlib.Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a place."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def disks(name: str, folder: pathlib.Path) -> tuple[int, list[str]]:
    """(sizes, faults) of a work on disks that are full before it ends."""
    out, faults = folder / f"needs-{name}", []
    code, err = told(name, folder, out)
    assert code == 0, (name, err)
    wanted = _outcome(out)
    used = sum(-(-p.stat().st_size // 4096) * 4096 for p in out.rglob("*") if p.is_file())
    refused = 0
    for number in range(SIZES):
        size = max(4096, int(used * number / (SIZES - 1) * 0.95)) // 4096 * 4096
        place = folder / f"disk-{name}"
        with _disk(place, size):
            code, err = told(name, folder, place / "out")
            line = [x for x in err.splitlines() if x.startswith("error: ")]
            if code not in (0, 1) or (code and (len(line) != 1 or "disk" not in line[0])):
                faults.append(f"{name} on {size} of {used} bytes ends with {code}: {err[-500:]}")
            refused += code == 1
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            fault = _compared(name, folder, place / "out", wanted)
            if fault:
                faults.append(f"{name} on {size} of {used} bytes, then on more: {fault}")
    if refused < SIZES // 2:
        faults.append(f"{name}: only {refused} of {SIZES} disks were too small")
    return SIZES, faults


def without_pictures() -> None:
    """Pictures cost most of a work's time: here each is a small file of its name."""
    from circuitjax.core.files import write_bytes
    from circuitjax.report import plots, suite_figures
    from circuitjax.run import prune

    def written(figure: Any, path: Any) -> None:
        write_bytes(path, b"a picture")

    class Nothing:
        def savefig(self, *args: Any, **more: Any) -> None:
            pass

    real = prune.draw_run

    def draw(run, circuit, candidates, best, base, history) -> None:
        for picture in ("loss_vs_k.png", "kl_vs_k.png", "training.png", "circuit.png"):
            if (picture != "kl_vs_k.png" or best.choice.curve[0].kl is not None) and (
                picture != "training.png" or history
            ):
                write_bytes(run.directory / picture, b"a picture")

    assert real is not None
    prune.draw_run = draw
    plots.save_figure = written
    for module in ("study_report", "audit_plots"):
        loaded = __import__(f"circuitjax.report.{module}", fromlist=[module])
        loaded.save_figure = written

    def vector(figure: Any, stem: pathlib.Path) -> list[pathlib.Path]:
        paths = [stem.with_name(stem.name + ending) for ending in (".png", ".pdf")]
        for path in paths:
            write_bytes(path, b"a picture")
        return paths

    suite_figures.save_vector = vector


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    root = pathlib.Path(arguments[0])
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    works.keep_programs(root / "programs")
    without_pictures()
    part, _, most = arguments[1].partition(":")
    parts = {
        "events": functools.partial(events, most=int(most) if most else None),
        "disks": disks,
    }
    for name in arguments[2:] or list(works.WORKS):
        folder = root / f"{part}-{name}"
        folder.mkdir(parents=True)
        works.prepare(folder)
        started = time.perf_counter()
        cases, faults = parts[part](name, folder)
        row = {
            "part": part,
            "work": name,
            "cases": cases,
            "faults": faults,
            "seconds": round(time.perf_counter() - started, 1),
            "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        print(json.dumps(row), file=sys.__stdout__, flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
