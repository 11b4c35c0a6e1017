"""Every state of a directory that a SIGKILL could leave: a copy of it at each file event of a work.

A process that is killed leaves on disk what it had written, and its locks are free; so a copy taken
when the process is about to change a file, and one right after a renaming, is what a kill there leaves.
Files that grow in place, without a renaming, also leave half of what was being written: such states
are made from the copies.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Recorder", "is_change"]

_CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link",
    "os.symlink", "shutil.rmtree", "shutil.copyfile", "shutil.move",
}  # fmt: skip
# Orbax empties what it left unfinished before it writes there again: what lies in it is all one.
_UNFINISHED = ".orbax-checkpoint-tmp"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def is_change(event: str, args: tuple[Any, ...]) -> bool:
    """Whether an audit event of Python's is that a file or a folder is about to change."""
    return event in _CHANGES or bool(
        event == "open" and isinstance(args[2], int) and args[2] & _WRITING
    )


class Recorder:
    """Copies of a directory, without repetitions.

    Attributes:
      states: the copies, in order; a name with `torn` has a file that was half written.
      events: how many file events there were.
    """

    def __init__(self, directory: pathlib.Path, copies: pathlib.Path) -> None:
        """Nothing is recorded yet.

        Args:
          directory: to watch; it need not exist.
          copies: a new folder for the copies, elsewhere.
        """
        self.states: list[pathlib.Path] = []
        self.events = 0
        self._root, self._copies = directory, copies
        self._seen: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._renamed: set[str] = set()
        self._lock, self._active = threading.RLock(), False
        copies.mkdir(parents=True)
        sys.addaudithook(self._hook)  # for as long as the process lives: it cannot be taken off

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if is_change(event, args):
            self.take()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records what happens inside."""
        real = {name: getattr(os, name) for name in ("rename", "replace")}

        def after(name: str):
            def renamed(source: Any, target: Any, **more: Any) -> None:
                real[name](source, target, **more)
                if self._active:
                    self._renamed.add(os.path.relpath(target, self._root))
                    self.take()

            return renamed

        for name in real:
            setattr(os, name, after(name))
        self._active = True
        try:
            yield
        finally:
            self._active = False
            for name, function in real.items():
                setattr(os, name, function)

    def take(self) -> None:
        """Copies the directory, if it differs from every copy so far."""
        with self._lock:
            if not self._active:
                return  # what copying itself does
            self._active = False
            try:
                self.events += 1
                found = self._content()
                if self._is_new(found):
                    self._write(found, f"{len(self.states):04d}")
                    self._tear(found)
                self._sizes = {name: len(data) for name, data in found.items() if data is not None}
            finally:
                self._active = True

    def _content(self) -> dict[str, bytes | None]:
        """{path: its bytes, or None for a folder}; other threads may be at it."""
        found: dict[str, bytes | None] = {}
        for folder, folders, files in os.walk(self._root):
            where = os.path.relpath(folder, self._root)
            for name in folders:
                found[os.path.normpath(os.path.join(where, name))] = None
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    data = pathlib.Path(folder, name).read_bytes()
                    found[os.path.normpath(os.path.join(where, name))] = data
        return found

    def _is_new(self, found: dict[str, bytes | None]) -> bool:
        digest = hashlib.sha256()
        for name in sorted(found):
            if _UNFINISHED in os.path.dirname(name):
                continue
            data = found[name]
            digest.update(f"{name}\0{data is None}\0".encode())
            digest.update(hashlib.sha256(data or b"").digest())
        new = digest.hexdigest() not in self._seen
        self._seen.add(digest.hexdigest())
        return new

    def _write(self, found: dict[str, bytes | None], name: str) -> None:
        target = self._copies / name
        target.mkdir()
        for path, data in sorted(found.items()):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                (target / path).mkdir(exist_ok=True)
            else:
                (target / path).write_bytes(data)
        self.states.append(target)

    def _tear(self, found: dict[str, bytes | None]) -> None:
        """The state again with half, and with nothing, of what a file has gained in place."""
        for name, data in found.items():
            before = self._sizes.get(name, 0)
            if data is None or len(data) < before + 2 or self._is_atomic(name):
                continue
            for kept in {(before + len(data)) // 2, before}:
                torn = {**found, name: data[:kept]}
                if self._is_new(torn):
                    self._write(torn, f"{len(self.states):04d}-torn")

    def _is_atomic(self, name: str) -> bool:
        parts = pathlib.PurePath(name)
        inside = {str(above) for above in (parts, *parts.parents)}
        hidden = any(part.startswith(".") or "tmp" in part for part in parts.parts)
        return bool(inside & self._renamed) or hidden

    def forget(self, state: pathlib.Path) -> None:
        """Removes a copy that is done with."""
        shutil.rmtree(state, ignore_errors=True)
