"""Tasks and models as the binaries name them: built in, in a file, or as a circuit's record has them.

A name may end with how its prompts are framed as a chat: `ioi+chatml`, `mine.jsonl+llama3`; see
`tasks/chat.py`.
"""

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import Model
from circuitjax.tasks import jsonl
from circuitjax.tasks.base import Task
from circuitjax.tasks.chat import FRAMES, framed
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.named import find_task, parts
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import BUILT_IN, load_model

__all__ = ["is_file", "load_task", "model_of", "said_again", "task_for", "task_of"]


def is_file(name: str) -> bool:
    """Whether a name is that of a .jsonl file."""
    return parts(name)[0].endswith(".jsonl")


def task_for(name: str, model: Model) -> Task | ContrastTask:
    """A task by name, or of a .jsonl file that the model's tokenizer can read; ValueError if not."""
    if not is_file(name):
        return find_task(name)
    base, form = parts(name)
    task = jsonl.load(base, Tokenizer.from_json(model.tokenizer_json))
    return task if form is None else framed(task, form)


def load_task(
    name: str | None, model: str, *, chat: bool = False
) -> tuple[Model, Task | ContrastTask]:
    """A model and a task; an unknown built-in task is refused before the model is loaded.

    Args:
      name: of a built-in task, or a path that ends in .jsonl.
      model: a built-in model, or the path of a model directory.
      chat: whether prompts are framed as the model's own chat template does.

    Raises:
      ValueError: no name, no such task or model, a broken file, a model without a known template.
    """
    if name is None:
        raise ValueError("--task is missing: name one of --list_tasks, or a .jsonl file")
    if not is_file(name):
        find_task(name)
    loaded = load_model(model)
    form = loaded.provenance.get("chat_form") if chat else None
    if chat and form is None:
        raise ValueError(
            f"{loaded.name} has no chat template of a known form: leave --chat_template out, or name "
            f"one: --task={name}+<form>, of {', '.join(FRAMES)}"
        )
    return loaded, task_for(f"{name}+{form}" if chat else name, loaded)


def said_again(task: str | None, model: str) -> dict[str, str | None]:
    """Flags that a later command on a run needs: what a circuit names by a word may be a file.

    Args:
      task, model: as they were given.

    Returns:
      {flag: value}; None where the circuit's own record suffices.
    """
    return {
        "task": task if task is not None and is_file(task) else None,
        "model": model if model not in BUILT_IN else None,
    }


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
