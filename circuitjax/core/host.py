"""What a binary sets up on the host before it computes."""

import ctypes
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import filelock
import jax

__all__ = ["alone_in", "cache_compilations", "keep_freed_memory"]

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory instead of handing it back to the kernel.

    XLA's CPU backend allocates the temporaries of a program anew at each call; by default glibc may
    map and unmap them every time, at the price of page faults. Whether it pays depends on the
    program. To be called once, early, by a binary; a library must not decide this for its host.

    Returns:
      Whether it took effect (Linux with glibc only).
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**29))
    return all(mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 for key, value in settings)


def cache_compilations(directory: str | None = None) -> None:
    """Keeps compiled programs on disk, so that the next run of a binary starts at once.

    Args:
      directory: where; None means `$XDG_CACHE_HOME/circuitjax/xla`, by default under `~/.cache`.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    jax.config.update("jax_compilation_cache_dir", directory or f"{root}/circuitjax/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Holds a directory, made if missing, for this process; a process that dies lets go of it.

    Raises:
      ValueError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"another process works in {directory}: wait for it, or choose another directory"
        ) from None
    try:
        yield
    finally:
        lock.release()
