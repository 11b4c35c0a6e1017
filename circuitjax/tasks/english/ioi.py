"""Indirect object identification: two people are named, one of them again; the other receives.

"While Mary and Paul were at the lake, Paul offered the key to" goes on with " Mary". The one named
once (A) may come first, then the one named twice (B): order ABBA, as here; or second: BABA. In the
corrupted prompt three other names stand in the three places, so none is named twice.

With N usable names there are 2 * 18 templates and more than 10^4 * N (N - 1) examples of each: over
10^8 already at the least N of 20.

Reference: Wang et al. 2022, "Interpretability in the Wild: a Circuit for Indirect Object
Identification in GPT-2 small".
"""

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from circuitjax.tasks.context import distinct, pick
from circuitjax.tasks.contrast import ContrastTask, Example, ExampleSampler
from circuitjax.tasks.english.vocabulary import single
from circuitjax.tasks.english.words import NAMES, OBJECTS, PLACES
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["IOI", "LEAST_NAMES", "TEMPLATES", "samplers"]

#: The least number of names that must be single tokens.
LEAST_NAMES = 20

#: Prompts by id: the two names as they first come, and the one that comes again.
TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "walked": "After {first} and {second} walked to the {place}, {again} handed a {object} to",
        "were_at": "While {first} and {second} were at the {place}, {again} offered the {object} to",
        "arrived": "Then {first} and {second} arrived at the {place}, and {again} passed a {object} to",
        "met": "Yesterday {first} and {second} met near the {place}. Soon {again} gave a {object} to",
        "friends": "The two friends {first} and {second} sat in the {place}. Then {again} lent the "
        "{object} to",
        "talk": "After a long talk between {first} and {second} in the {place}, {again} decided to "
        "give a {object} to",
        "found": "At the {place}, {first} and {second} found a {object}. In the end {again} gave it to",
        "bought": "Once {first} and {second} had bought a {object} near the {place}, {again} handed "
        "it to",
        "quarrel": "Because {first} and {second} had quarrelled at the {place}, {again} sent a "
        "{object} to",
        "rain": "It was raining when {first} and {second} left the {place}, so {again} lent a "
        "{object} to",
        "trip": "On a birthday trip of {first} and {second} to the {place}, {again} presented a "
        "{object} to",
        "worked": "Last week {first} and {second} worked at the {place}, and on Friday {again} showed "
        "the {object} to",
        "car": "As usual, {first} and {second} shared a car to the {place}. Today {again} brought a "
        "{object} for",
        "promise": "Before {first} and {second} returned from the {place}, {again} promised the "
        "{object} to",
        "search": "When {first} and {second} had searched the whole {place} for a {object}, {again} "
        "finally gave one to",
        "evening": "Late in the evening {first} and {second} were still in the {place}. Smiling, "
        "{again} threw a {object} to",
        "stopped": "On the way home {first} and {second} stopped at the {place}, where {again} sold "
        "the {object} to",
        "cleaned": "Today {first} and {second} cleaned the {place} together, and {again} returned a "
        "{object} to",
    }
)


def _sampler(order: str, key: str, names: Sequence[str]) -> ExampleSampler:
    """Makes the sampler of one template, the indirect object first (abba) or second (baba)."""
    template = TEMPLATES[key]

    def sample(rng: random.Random) -> Example:
        receiver, giver, *others = distinct(rng, 5, names)
        first, second = (receiver, giver) if order == "abba" else (giver, receiver)
        rest = {"place": pick(rng, PLACES), "object": pick(rng, OBJECTS)}
        return Example(
            template.format(first=first, second=second, again=giver, **rest),
            template.format(first=others[0], second=others[1], again=others[2], **rest),
            (f" {receiver}",),
            (f" {giver}",),
        )

    sample.__name__ = f"{order}_{key}"
    return sample


def samplers(tokenizer: Tokenizer) -> tuple[ExampleSampler, ...]:
    """Returns the samplers with the names that are one token each.

    Raises:
      ValueError: If fewer than `LEAST_NAMES` names are.
    """
    names = single(tokenizer, NAMES, LEAST_NAMES, "first names")
    return tuple(_sampler(order, key, names) for order in ("abba", "baba") for key in TEMPLATES)


IOI = ContrastTask(
    "ioi",
    "Of two people, the one who has not been named again receives the thing.",
    metric="logit_difference",
    fit=samplers,
)
