"""Greater-than: what began in one year ends in a later one of the same century.

"The war lasted from the year 1743 to the year 17" goes on with 44 to 99; 00 to 43 are wrong. In the
corrupted prompt the first year ends in 01, so that nearly every completion is right.

Only years count that the tokenizer splits in two by two digits, as " 17" and "43": after " 17" no
other completion is ever made. A tokenizer with Y such first years has 7 * 76 * Y different clean
prompts; Y must be at least `LEAST_YEARS`, so there are always over 100,000.

Reference: Hanna et al. 2023, "How does GPT-2 compute greater-than?"
"""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from circuitjax.tasks.context import pick
from circuitjax.tasks.contrast import ContrastTask, Example, ExampleSampler
from circuitjax.tasks.english.vocabulary import require
from circuitjax.tasks.english.words import PERIODS
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "CENTURIES",
    "GREATER_THAN",
    "LEAST_YEARS",
    "TEMPLATES",
    "FirstYear",
    "first_years",
    "samplers",
    "split_years",
]

#: The least number of years in which something may begin.
LEAST_YEARS = 200

#: The first two digits of the years tried.
CENTURIES: tuple[str, ...] = tuple(str(number) for number in range(10, 21))

_TWO_DIGITS: tuple[str, ...] = tuple(f"{number:02d}" for number in range(100))
_CORRUPTED = "01"

#: Prompts by id: the year in which it began, and the century in which it ended.
TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "lasted": "The {period} lasted from the year {century}{year} to the year {century}",
        "began": "The {period} began in {century}{year} and came to an end in {century}",
        "went_on": "From {century}{year} the {period} went on until {century}",
        "historians": "Historians date the {period} from {century}{year} to {century}",
        "records": "All records of the {period} fall between {century}{year} and {century}",
        "started": "Nobody who saw the {period} start in {century}{year} hoped for its end in {century}",
        "continued": "The {period} that started in {century}{year} continued through {century}",
    }
)


def split_years(tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Returns for each century the years, as two digits, that are two tokens of two digits each."""
    years = [(century, year) for century in CENTURIES for year in _TWO_DIGITS]
    ids = tokenizer.encode_after([f" {century}{year}" for century, year in years])
    found: dict[str, tuple[str, ...]] = dict.fromkeys(CENTURIES, ())
    for (century, year), row in zip(years, ids, strict=True):
        if row == [tokenizer.token_id(f" {century}"), tokenizer.token_id(year)]:
            found[century] += (year,)
    return found


class FirstYear(NamedTuple):
    """A year in which something may begin, and which years of the century are after it, which not.

    Attributes:
      century: The first two digits.
      year: The last two digits.
      right: The later years that can be completions, as two digits each.
      wrong: The others, down to 00.
    """

    century: str
    year: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def first_years(tokenizer: Tokenizer) -> list[FirstYear]:
    """Returns the years in which something may begin.

    Such a year is after 01, has a later one, and its century's 01 is split as it should.
    """
    return [
        FirstYear(century, year, years[index + 1 :], years[: index + 1])
        for century, years in split_years(tokenizer).items()
        if _CORRUPTED in years
        for index, year in enumerate(years[:-1])
        if year > _CORRUPTED
    ]


def samplers(tokenizer: Tokenizer) -> tuple[ExampleSampler, ...]:
    """Returns the samplers with the years that the tokenizer splits in two by two digits.

    Raises:
      ValueError: If fewer than `LEAST_YEARS` years can be a first one.
    """
    years = first_years(tokenizer)
    require(
        len(years), len(CENTURIES) * len(_TWO_DIGITS), LEAST_YEARS, "years two tokens of two digits"
    )

    def make(key: str, template: str) -> ExampleSampler:
        def sample(rng: random.Random) -> Example:
            first = years[int(rng.random() * len(years))]
            rest = {"period": pick(rng, PERIODS), "century": first.century}
            return Example(
                template.format(year=first.year, **rest),
                template.format(year=_CORRUPTED, **rest),
                first.right,
                first.wrong,
            )

        sample.__name__ = key
        return sample

    return tuple(make(key, template) for key, template in TEMPLATES.items())


GREATER_THAN = ContrastTask(
    "greater_than",
    "What began in one year of a century ends in a later one.",
    metric="probability_difference",
    fit=samplers,
)
