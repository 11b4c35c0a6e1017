"""The card of a built-in model: what it is made of, how, and how well it does the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.model.record import Model
from circuitjax.report.table import markdown_table

__all__ = ["model_card"]

_PASS = 0.15


def model_card(
    model: Model,
    manifest: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    tasks: Sequence[Sequence[Any]],
    size: int,
) -> str:
    """Markdown.

    Args:
      model: the record, its provenance filled in.
      manifest: of the corpus it was trained on.
      history: one dictionary per training step.
      tasks: rows (name, loss unpruned, loss of the empty circuit, accuracy), test split, nats.
      size: bytes of the packed file.
    """
    facts = model.provenance
    recipe = facts["recipe"]
    counts = manifest["counts"]
    sources = [
        (s["name"], s["version"], s["licence"], s.get("files_kept"), s.get("characters_kept"))
        for s in manifest["sources"]
    ]
    curve = [
        (int(row["step"]), row["loss"], row["validation_idioms"], row["validation_code"])
        for row in history
        if "validation_idioms" in row
    ]
    good = sum(row[1] <= _PASS for row in tasks)
    failing = [f"{row[0]} ({row[1]:.3f})" for row in tasks if row[1] > _PASS]
    return "\n".join(
        [
            f"# {model.name}",
            "",
            f"A {model.config.num_layers}-layer transformer of Python source, "
            f"{model.num_nonzero:,} nonzero parameters (density {recipe['density']:g} in every "
            f"matrix), content hash `{model.hash[:16]}`, {size / 2**20:.2f} MiB packed.",
            "",
            "## Data",
            "",
            "Real source and a generator of simple idioms "
            "(`circuitjax/pretrain/idioms/`, written for this project):",
            "",
            markdown_table(
                ("stream", "documents", "tokens"),
                [(name, c["documents"], c["tokens"]) for name, c in counts.items()],
            ),
            "",
            markdown_table(("source", "version", "licence", "files", "characters"), sources),
            "",
            "## Recipe",
            "",
            "    python -m experiments.corpus --out=corpus",
            f"    python -m experiments.pretrain --recipe=experiments/recipes/{model.name}.json \\",
            f"        --corpus=corpus --out=runs/pretrain/{model.name}",
            "    python -m experiments.package_model "
            f"--run=runs/pretrain/{model.name} --corpus=corpus \\",
            f"        --name={model.name} --out=circuitjax/zoo/data/{model.name}",
            "",
            f"{facts['steps_taken']} steps, {facts['tokens']:,} tokens, seed {recipe['seed']}, "
            f"learning rate {recipe['learning_rate']:g} / sqrt(density), weight decay "
            f"{recipe['weight_decay']:g}, eps {recipe['eps']:g}. Means over "
            f"{facts['mean_tokens']:,} training tokens. Versions: "
            + ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
            + ".",
            "",
            "## Loss (nats per token)",
            "",
            markdown_table(("step", "train", "held-out idioms", "held-out code"), curve),
            "",
            "## Tasks",
            "",
            f"Test split, nothing pruned: {good} of {len(tasks)} tasks at or under {_PASS} nats. "
            + (f"Above: {', '.join(failing)}." if failing else ""),
            "",
            markdown_table(("task", "loss", "loss, empty circuit", "accuracy"), tasks),
            "",
        ]
    )
