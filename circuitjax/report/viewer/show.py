"""`show`: a circuit's page inside a notebook, and the way from a circuit to its page."""

import dataclasses
import html
import os
from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut
from circuitjax.model.record import Model
from circuitjax.prune.config import Choices, DataConfig
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.report.viewer.collect import page_data
from circuitjax.report.viewer.groups import Group
from circuitjax.report.viewer.page import render_page, title_text, write_page
from circuitjax.report.viewer.texts import Contexts, idiom_contexts
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.named import find_task
from circuitjax.zoo.load import load_model

__all__ = ["Page", "circuit_page", "require_own", "show"]

_ITEMS = 64  # of each split: what a page measures and shows
_HEIGHT = 760  # pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """A circuit's page; a notebook displays it.

    Attributes:
      data: see `collect.page_data`.
      height: of the frame in a notebook, in pixels.
    """

    data: Mapping[str, Any] = dataclasses.field(repr=False)
    height: int = _HEIGHT

    @property
    def html(self) -> str:
        """The page, a whole document."""
        return render_page(dict(self.data))

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the page to a file, atomically; returns its size in bytes.

        Raises:
          ValueError: too large, or the path cannot be written.
        """
        return write_page(path, dict(self.data))

    def _repr_html_(self) -> str:
        """A frame of its own origin: the page reaches nothing of the notebook, and needs nothing."""
        return (
            f'<iframe title="{title_text(self.data)}" sandbox="allow-scripts" width="100%" '
            f'height="{self.height}" style="border:1px solid #ccc;border-radius:4px" '
            f'srcdoc="{html.escape(self.html, quote=True)}"></iframe>'
        )


def _problem(
    circuit: Circuit, model: Model, task: Task | ContrastTask | str | None
) -> tuple[Problem | None, str]:
    """The task's data, and what to tell the reader where there is none."""
    given = task is not None
    name = task if isinstance(task, str) else circuit.provenance.get("task")
    if task is None or isinstance(task, str):
        try:
            task = find_task(str(name))
        except ValueError as error:
            if given:
                raise ValueError(f"{error}; or give a Task, or leave it out") from None
            return None, f"No prompts, effects and patterns: {error}; give the task to see them."
    try:
        # What closed parts hold is the circuit's own: only the data matter.
        sizes = DataConfig(train=_ITEMS, validation=1, test=_ITEMS)
        return make_problem(model, task, Choices(ablation="zero"), sizes), ""
    except ValueError as error:
        if given:
            raise
        return None, f"No prompts, effects and patterns: {error}."


def require_own(circuit: Circuit, record: Any, what: str) -> None:
    """Refuses a report or an audit of another circuit; those of earlier versions do not name theirs.

    Raises:
      ValueError: one line that begins with `what`.
    """
    fields = record if isinstance(record, Mapping) else {}
    settings = fields.get("settings")
    named = fields.get(
        "circuit", settings.get("circuit") if isinstance(settings, Mapping) else None
    )
    sizes = {
        "model_hash": circuit.model_hash,
        "nodes": circuit.num_nodes,
        "edges": circuit.num_edges,
    }
    differs = any(fields.get(name) not in (None, size) for name, size in sizes.items())
    if differs or named not in (None, circuit.content_hash):
        raise ValueError(f"{what} is of another circuit")


def circuit_page(
    circuit: Circuit,
    model: Model | None = None,
    *,
    task: Task | ContrastTask | str | None = None,
    contexts: Contexts | None = None,
    report: Mapping[str, Any] | None = None,
    audit: Any = None,
    other: Circuit | None = None,
    groups: Sequence[Group] = (),
    height: int = _HEIGHT,
) -> Page:
    """Gathers a circuit's page; some seconds for a circuit of a hundred nodes.

    Args:
      circuit: of nodes, weights or residual edges; not empty.
      model: the circuit's own; None loads the one it names.
      task: where prompts come from; None takes the built-in task that the circuit names, if any.
      contexts: text for each node's strongest and weakest contexts; None takes text like a built-in
        model's pretraining mix, for other models the task's training prompts.
      report: of the run that found it, for its figures and the curve of loss against k.
      audit: content of an audit.json, for its table.
      other: a circuit of the same model to compare with: what both keep, what each keeps alone.
      groups: named groups of nodes, as `groups.read_groups` gives them.
      height: of the frame in a notebook, in pixels.

    Raises:
      ValueError: an empty circuit, another model's, no such model, or a task that is unknown or
        cannot be asked, an `other` that cannot be compared, or another circuit's report or audit.
    """
    if not circuit.num_nodes:
        name = circuit.provenance.get("task")
        raise ValueError(f"the circuit of task {cut(name)} is empty: there is nothing to show")
    for what, record in (("the report", report), ("the audit", audit)):
        require_own(circuit, record, what)
    model = load_model(circuit.model_name) if model is None else model
    circuit.check_model(model)
    problem, note = _problem(circuit, model, task)
    if contexts is None and "mask" in circuit.opened:
        contexts = idiom_contexts(model)
    data = page_data(
        circuit, model, problem, contexts, report, audit, note, other=other, groups=groups
    )
    return Page(data, height)


def show(
    circuit: Circuit,
    model: Model | None = None,
    *,
    task: Task | ContrastTask | str | None = None,
    report: Mapping[str, Any] | None = None,
    audit: Any = None,
    other: Circuit | None = None,
    groups: Sequence[Group] = (),
    height: int = _HEIGHT,
) -> Page:
    """A circuit inside a notebook (Jupyter or Colab): `cj.show(circuit)` as the last line of a cell.

    Arguments and errors are those of `circuit_page`; `.save("circuit.html")` writes the same page to a
    file that opens anywhere.

    Examples:
      >>> cj.show(circuit, model).save("circuit.html") > 100_000  # bytes
      True
    """
    return circuit_page(
        circuit,
        model,
        task=task,
        report=report,
        audit=audit,
        other=other,
        groups=groups,
        height=height,
    )
