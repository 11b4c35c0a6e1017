"""Numbers that a command line may give: those of a flag are refused by its name, before any work."""

from collections.abc import Collection, Iterable
from typing import Any, Protocol

from circuitjax.core.files import cut

__all__ = ["MOST_COUNT", "MOST_JOBS", "check_names", "check_numbers", "check_seed"]

#: Jobs of one program, or seeds: a program of more could not be laid out, only begun.
MOST_JOBS = 1000
#: Of anything that is counted: more is a slip of the hand, and would never end.
MOST_COUNT = 10**9


class _Given(Protocol):
    """A flag, or what `DEFINE_*` returns."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> Any: ...


def check_numbers(*given: _Given, least: float = 1, most: float = MOST_COUNT) -> None:
    """Refuses numbers out of [least, most]; a flag that was left out passes.

    Raises:
      ValueError: one is out of it, or NaN: it names the flag, the value and the limit.
    """
    for flag in given:
        if flag.value is None or least <= flag.value <= most:
            continue
        limit = f"at most {most:g}" if flag.value > most else f"at least {least:g}"
        raise ValueError(f"--{flag.name}={flag.value} must be {limit}")


def check_names(flag: str, given: Collection[str], known: Iterable[str]) -> None:
    """Refuses a list without names, or with one that is not known.

    Raises:
      ValueError: it names the flag, and what can be chosen.
    """
    choices = tuple(known)
    unknown = [name for name in given if name not in choices]
    if unknown or not given:
        held = f"holds {cut(unknown[0])}" if unknown else "is empty"
        raise ValueError(f"--{flag} {held}; choose from {', '.join(choices)}")


def check_seed(*given: _Given) -> None:
    """Refuses seeds that generators do not take, or take for others: those out of [0, 2^32 - 1000)."""
    check_numbers(*given, least=0, most=2**32 - MOST_JOBS - 1)
