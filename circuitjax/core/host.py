"""What a binary sets up on the host before it computes."""

import ctypes
import errno
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import filelock
import jax

from circuitjax.core.files import clean_leftovers, one_line

__all__ = [
    "NoDeviceError",
    "alone_in",
    "available_memory",
    "cache_compilations",
    "cache_directory",
    "cache_size",
    "check_device",
    "check_settings",
    "clear_cache",
    "disk_gave_out",
    "forget_programs",
    "keep_freed_memory",
]


class NoDeviceError(RuntimeError):
    """JAX has none of the devices that were asked for."""


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


def check_device() -> None:
    """Makes sure that JAX can compute at all, before something else takes the blame.

    Raises:
      NoDeviceError: one line that says what was asked for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for JAX_PLATFORMS=cuda without one
        asked = os.environ.get("JAX_PLATFORMS")
        said = one_line(str(error)) or "there is none"
        what = f"JAX_PLATFORMS={asked}" if asked else "its default platform"
        raise NoDeviceError(
            f"JAX finds no device for {what} ({said}): unset JAX_PLATFORMS, set it to cpu, or "
            "install what drives the device: pip install '.[cuda]' or '.[tpu]'"
        ) from None


def check_settings() -> None:
    """Refuses settings of JAX under which nothing here works, in words that name them.

    Raises:
      ValueError: 64-bit numbers, or compilation turned off.
    """
    if jax.config.values["jax_enable_x64"]:
        raise ValueError(
            "JAX_ENABLE_X64 is set: everything here computes in float32, and records are of float32 "
            "arrays; unset it"
        )
    if jax.config.values["jax_disable_jit"]:
        raise ValueError(
            "JAX_DISABLE_JIT is set: without compilation a run takes a thousand times as long; unset it"
        )


_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def disk_gave_out(error: BaseException) -> bool:
    """Whether an error says that the disk is full, over its quota, failing or read only.

    Libraries that write by themselves raise other kinds of errors, in the system's words.
    """
    if isinstance(error, OSError) and error.errno in _OF_DISK:
        return True
    return any(os.strerror(number) in str(error) for number in _OF_DISK)


def available_memory() -> int | None:
    """Bytes of memory that a program may still take on this host; None where nobody says (not Linux)."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(found) * 1024
    except (OSError, StopIteration, IndexError, ValueError):
        return None


_MAPS = pathlib.Path("/proc/self/maps")
_MOST_MAPS = pathlib.Path("/proc/sys/vm/max_map_count")


def forget_programs(share: float = 0.5) -> bool:
    """Lets go of compiled programs once a process holds many of the mappings that Linux grants it.

    A compiled program takes several; without any left the compiler ends the process. To be called
    between pieces of work: what is needed again is compiled again, or read from `cache_directory()`.

    Args:
      share: of the mappings that may be held before anything is let go.

    Returns:
      Whether programs were let go.
    """
    try:
        most = int(_MOST_MAPS.read_text(encoding="ascii"))
        held = _MAPS.read_bytes().count(b"\n")
    except (OSError, ValueError):  # not Linux, or nobody says
        return False
    if held <= share * most:
        return False
    jax.clear_caches()
    return True


def cache_directory() -> pathlib.Path:
    """Where binaries keep compiled programs: `$XDG_CACHE_HOME/circuitjax/xla`, else below `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root) / "circuitjax" / "xla"


def cache_size() -> tuple[int, int]:
    """(number, bytes) of the files that `cache_compilations` has kept."""
    sizes = []
    for path in cache_directory().rglob("*"):
        try:
            if path.is_file():
                sizes.append(path.stat().st_size)
        except OSError:  # another process has just cleared it
            continue
    return len(sizes), sum(sizes)


def clear_cache() -> None:
    """Removes all compiled programs; they are made again when they are needed."""
    shutil.rmtree(cache_directory(), ignore_errors=True)


def cache_compilations(directory: str | None = None) -> None:
    """Keeps compiled programs on disk, so that the next run of a binary starts at once.

    Args:
      directory: where; None means `cache_directory()`.
    """
    jax.config.update("jax_compilation_cache_dir", directory or str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Holds a directory, made if missing, for this process; a process that dies lets go of it.

    Files that a killed process was writing there under temporary names are removed. A directory that
    was made for nothing, since the work was refused, is removed again.

    Raises:
      ValueError: another process holds it.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"another process works in {directory}: wait for it, or choose another directory"
        ) from None
    try:
        clean_leftovers(directory)
        yield
    finally:
        with suppress(OSError):
            if missing and [path.name for path in directory.iterdir()] == [".lock"]:
                (directory / ".lock").unlink()
                for path in missing:
                    path.rmdir()
        lock.release()
