"""Tasks and models as the binaries name them: built in, in a file, or as a circuit's record has them."""

import difflib

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut
from circuitjax.model.record import Model
from circuitjax.tasks import jsonl, suite
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.english import suite as english
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import load_model

__all__ = ["find_task", "load_task", "model_of", "task_for", "task_of"]


def find_task(name: str) -> Task | ContrastTask:
    """A built-in task by name: one of the 20 Python tasks, or an English one.

    Raises:
      ValueError: no such task, with the nearest names.
    """
    if name in english.names():
        return english.get(name)
    if name not in suite.TASKS:
        known = (*suite.names(), *english.names())
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else "prune --list_tasks names all"
        raise ValueError(f"there is no task {cut(name)}: {meant}")
    return suite.get(name)


def task_for(name: str, model: Model) -> Task | ContrastTask:
    """A task by name, or of a .jsonl file that the model's tokenizer can read; ValueError if not."""
    if name.endswith(".jsonl"):
        return jsonl.load(name, Tokenizer.from_json(model.tokenizer_json))
    return find_task(name)


def load_task(name: str | None, model: str) -> tuple[Model, Task | ContrastTask]:
    """A model and a task; an unknown built-in task is refused before the model is loaded.

    Args:
      name: of a built-in task, or a path that ends in .jsonl.
      model: a built-in model, or the path of a model directory.

    Raises:
      ValueError: no name, no such task or model, a broken file.
    """
    if name is None:
        raise ValueError("--task is missing: name one of --list_tasks, or a .jsonl file")
    if not name.endswith(".jsonl"):
        find_task(name)
    loaded = load_model(model)
    return loaded, task_for(name, loaded)


def task_of(circuit: Circuit, given: str | None) -> str:
    """What --task says, else the name of the task the circuit was found for; ValueError without both."""
    name = given or circuit.provenance.get("task")
    if name is None:
        raise ValueError("the circuit does not say what it was found for: give --task")
    return str(name)


def model_of(circuit: Circuit, given: str | None) -> Model:
    """The model of --model, else the one that the circuit names.

    Raises:
      ValueError: no such model; the line says so where --model may help.
    """
    try:
        return load_model(given or circuit.model_name)
    except ValueError as error:
        named = " The circuit's model can be given by --model" if given is None else ""
        raise ValueError(f"{error}{named}") from None
