"""Gendered pronouns: a person is named, and the next word is "she" or "he".

"So Mary is a great friend, isn't" goes on with " she", the same with Paul with " he". In the
corrupted prompt stands a name of the other gender that has as many tokens.

There are 9 templates, 58 adjectives, 52 people: with at least 20 names of either gender more than
a million different clean prompts.

Reference: Mathwin et al. 2023, "Identifying a Preliminary Circuit for Predicting Gendered Pronouns
in GPT-2 Small".
"""

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from circuitjax.tasks.context import pick
from circuitjax.tasks.contrast import ContrastTask, Example, ExampleSampler
from circuitjax.tasks.english.vocabulary import require, single, token_counts
from circuitjax.tasks.english.words import ADJECTIVES, FEMALE, MALE, PEOPLE
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["LEAST_NAMES", "PRONOUNS", "TEMPLATES", "samplers"]

#: The least number of usable names of either gender.
LEAST_NAMES = 20

#: Prompts by id.
TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "isnt": "So {name} is a {adjective} {person}, isn't",
        "wasnt": "Back then {name} was always a {adjective} {person}, wasn't",
        "because": "Everybody calls {name} a {adjective} {person} because",
        "now": "My cousin {name} was once a {adjective} {person}, but now",
        "said": "The {adjective} {person} {name} said that",
        "until": "Nobody knew that {name} was a {adjective} {person} until",
        "even_though": "We never trusted {name}, a {adjective} {person}, even though",
        "whenever": "They listen to {name}, the {adjective} {person}, whenever",
        "if_only": "Surely {name} could become a {adjective} {person} if only",
    }
)


class _Gender(NamedTuple):
    """The names of one gender, its pronoun and the other's, and the partners of each name."""

    names: tuple[str, ...]
    right: str
    wrong: str
    partners: Mapping[str, Sequence[str]]


def _sampler(key: str, genders: Sequence[_Gender]) -> ExampleSampler:
    template = TEMPLATES[key]

    def sample(rng: random.Random) -> Example:
        gender = genders[int(rng.random() * len(genders))]
        name = pick(rng, gender.names)
        rest = {"adjective": pick(rng, ADJECTIVES), "person": pick(rng, PEOPLE)}
        return Example(
            template.format(name=name, **rest),
            template.format(name=pick(rng, gender.partners[name]), **rest),
            (gender.right,),
            (gender.wrong,),
        )

    sample.__name__ = key
    return sample


def _partners(tokenizer: Tokenizer) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """For each woman's name the men's of as many tokens, and the reverse; names without are out."""
    female, male = token_counts(tokenizer, FEMALE), token_counts(tokenizer, MALE)
    of_female = {n: [m for m in MALE if male[m] == female[n]] for n in FEMALE}
    of_male = {n: [f for f in FEMALE if female[f] == male[n]] for n in MALE}
    return {n: p for n, p in of_female.items() if p}, {n: p for n, p in of_male.items() if p}


def samplers(tokenizer: Tokenizer) -> tuple[ExampleSampler, ...]:
    """Returns the samplers with the names that have a partner of as many tokens.

    Raises:
      ValueError: If "she" or "he" is not one token after a space, or fewer than `LEAST_NAMES` names
        of one gender are usable.
    """
    single(tokenizer, ("she", "he"), 2, "pronouns")
    of_female, of_male = _partners(tokenizer)
    require(len(of_female), len(FEMALE), LEAST_NAMES, "women's names as long as a man's")
    require(len(of_male), len(MALE), LEAST_NAMES, "men's names as long as a woman's")
    genders = (
        _Gender(tuple(of_female), " she", " he", of_female),
        _Gender(tuple(of_male), " he", " she", of_male),
    )
    return tuple(_sampler(key, genders) for key in TEMPLATES)


PRONOUNS = ContrastTask(
    "pronouns",
    "The gender of a person's first name decides the pronoun.",
    metric="logit_difference",
    fit=samplers,
)
