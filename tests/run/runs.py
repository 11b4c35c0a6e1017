"""Small runs on the planted model, of any grain."""

import dataclasses
import pathlib
from typing import Any

from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search
from circuitjax.prune.train import Job
from circuitjax.run.search import PruneRun
from tests.prune.planted import SEARCH, TASK, planted_model

HYPER = Hyper(0.01, init_noise_scale=0.05, lr=0.02)
JOBS = [Job(0, HYPER), Job(1, dataclasses.replace(HYPER, k_coef=0.02))]


def changed(search: Search = SEARCH, **fields: Any) -> Search:
    """The search with other fields, whichever of its parts has them."""
    for part in dataclasses.fields(search):
        held = getattr(search, part.name)
        mine = {f.name: fields.pop(f.name) for f in dataclasses.fields(held) if f.name in fields}
        search = dataclasses.replace(search, **{part.name: dataclasses.replace(held, **mine)})
    assert not fields
    return search


def run_in(directory: pathlib.Path, **changes: Any) -> PruneRun:
    """A run of two jobs of nodes, with some fields changed."""
    fields = {"model": planted_model(), "task": TASK, "search": SEARCH, "jobs": JOBS, **changes}
    return PruneRun(directory=directory, **fields)


def forbidden(*args: Any, **kwargs: Any) -> None:
    """Stands in for work that must not be done again."""
    raise AssertionError("computed again")
