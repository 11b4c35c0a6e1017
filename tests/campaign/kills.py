"""Works killed by SIGKILL, again and again, until they end.

    python -m tests.campaign.kills FOLDER KILLS WORK...

A server that has imported everything, but started no backend, forks each process that works; so one
costs no start of Python and of JAX, but traces its programs, which are kept compiled on disk. Half of
the processes kill themselves at a random file event, before it or right after a renaming; the others
are killed at a random moment. After at most `CHAIN` kills the work is done to its end and compared
with one that was not interrupted. Prints a JSON line for each work, as `interrupted` does.
"""

import json
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["main"]

CHAIN = 6
_PRELOADED = [
    "tests.campaign.interrupted",
    "tests.campaign.works",
    "matplotlib.backends.backend_agg",
]


def work(name: str, folder: str, out: str, programs: str, die_at: int | None, end: Any) -> None:
    """The process that is killed: does what is left of a work and tells its outcome.

    Args:
      name, folder, out: see `works.run`.
      programs: folder of compiled programs.
      die_at: file event to die at; None: at none.
      end: where (exit code, stderr, file events, facts, peak memory in KiB) go.
    """
    from tests.campaign import interrupted, works

    os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
    works.keep_programs(pathlib.Path(programs))
    interrupted.without_pictures()
    count = [0]

    def event() -> None:
        count[0] += 1
        if count[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    _on_file_events(event, pathlib.Path(out))
    code, err = interrupted.told(name, pathlib.Path(folder), pathlib.Path(out))
    found = works.facts(pathlib.Path(out)) | works.arrays(pathlib.Path(out)) if code == 0 else {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end.send((code, err[-500:], count[0], found, peak))
    end.close()
    os._exit(0)


def _on_file_events(event: Callable[[], None], out: pathlib.Path) -> None:
    from tests.campaign.states import is_change

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if is_change(name, args) and out.parent.exists():
            event()

    sys.addaudithook(hook)
    for name in ("rename", "replace"):
        setattr(os, name, _renaming(getattr(os, name), event))


def _renaming(real: Callable[..., None], event: Callable[[], None]) -> Callable[..., None]:
    def renamed(source: Any, target: Any, **more: Any) -> None:
        real(source, target, **more)
        event()

    return renamed


class Killer:
    """Starts works and kills them."""

    def __init__(self, root: pathlib.Path) -> None:
        self._programs = str(root / "programs")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self.rng, self.peak = random.Random(0), 0

    def start(
        self, name: str, folder: pathlib.Path, out: pathlib.Path, *, die_at: int | None = None,
        after: float | None = None,
    ) -> tuple[int | None, str, int, dict[str, Any]] | None:  # fmt: skip
        """What the process told at its end; None if it was killed, by itself or after these seconds."""
        ours, theirs = self._context.Pipe(duplex=False)
        arguments = (name, str(folder), str(out), self._programs, die_at, theirs)
        process = self._context.Process(target=work, args=arguments)
        process.start()
        theirs.close()
        try:
            if not ours.poll(600 if after is None else after):
                process.kill()
                return None
            *found, peak = ours.recv()
            self.peak = max(self.peak, peak)
            return tuple(found)
        except EOFError:
            return None
        finally:
            process.join()
            ours.close()

    def campaign(self, name: str, root: pathlib.Path, kills: int) -> tuple[int, list[str]]:
        """(kills, faults) of a work."""
        from tests.campaign import works

        folder = root / name
        folder.mkdir(parents=True)
        works.prepare(folder)
        self.start(name, folder, folder / "first")  # compiles
        began = time.perf_counter()
        whole = self.start(name, folder, folder / "whole")
        assert whole is not None, name
        assert whole[0] == 0, whole[:2]
        most_seconds, most_events = time.perf_counter() - began, whole[2]
        done, faults, trial = 0, [], 0
        while done < kills:
            out, trial, history = folder / f"trial{trial}", trial + 1, []
            ended = None
            for _ in range(self.rng.randint(1, CHAIN)):
                at = {"die_at": self.rng.randint(1, most_events)}
                if self.rng.random() < 0.5:
                    at = {"after": self.rng.uniform(0.05, most_seconds)}
                ended = self.start(name, folder, out, **at)  # type: ignore[arg-type]
                if ended is not None:
                    break
                done += 1
                history.append(at)
            ended = ended or self.start(name, folder, out)
            if ended is None or ended[0] != 0:
                faults.append(f"{name} after {history} ends with {ended and ended[:2]}")
                continue
            found = works.differences(ended[3], whole[3])
            if found:
                faults.append(f"{name} after {history} ends otherwise: {found[:3]}")
        return done, faults


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    from tests.campaign import works

    root, kills = pathlib.Path(arguments[0]), int(arguments[1])
    killer = Killer(root)
    for name in arguments[2:] or list(works.WORKS):
        started = time.perf_counter()
        done, faults = killer.campaign(name, root / "kills", kills)
        row = {
            "part": "kills",
            "work": name,
            "cases": done,
            "faults": faults,
            "seconds": round(time.perf_counter() - started, 1),
            "peak_kib": killer.peak,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
