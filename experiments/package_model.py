r"""Turns a pretraining run into a built-in model: parameters, means, tokenizer, card, one small file.

    python -m experiments.package_model --run=runs/pretrain/tiny-python --corpus=corpus \
        --name=tiny-python --out=circuitjax/zoo/data/tiny-python

It takes the run's last checkpoint. The model card lists data, licences, recipe, command, seeds,
the loss curve, and the model's test loss on every built-in task.
"""

import pathlib

import jax
import numpy as np
from absl import flags

from circuitjax.audit.evidence import baseline
from circuitjax.core.checkpoints import latest_step, load_step
from circuitjax.core.files import parse_json, read_text, require_place
from circuitjax.core.records import Fields, unsealed
from circuitjax.model.means import MIN_TOKENS, activation_means
from circuitjax.model.record import Model
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.directory import read_recipe, require_corpus
from circuitjax.pretrain.packing import Corpus
from circuitjax.pretrain.train import bigram_counts, evaluate, fixed_params, init_state
from circuitjax.prune.defaults import default_search
from circuitjax.prune.find import prepare
from circuitjax.report.model_card import model_card
from circuitjax.run.directory import versions
from circuitjax.tasks.suite import TASKS
from circuitjax.zoo.storage import pack
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_numbers
from experiments.progress import counted, say, tell_next

_RUN = flags.DEFINE_string("run", None, "Folder written by experiments.pretrain.", required=True)
_CORPUS = flags.DEFINE_string("corpus", "corpus", "Folder written by experiments.corpus.")
_NAME = flags.DEFINE_string("name", None, "Name of the model.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for weights.npz and CARD.md.", required=True)
_MEAN_TOKENS = flags.DEFINE_integer("mean_tokens", MIN_TOKENS, "Tokens the means are taken over.")
_MEAN_SEED = 1_000_003  # of the rows the means are taken over; no training run uses it


def _read_run(root: pathlib.Path) -> tuple[PretrainConfig, dict, int, list[dict]]:
    try:
        config = read_recipe(root)
        lines = read_text(root / "metrics.jsonl").splitlines()
        history = [
            unsealed(parse_json(line, where), where)
            for where, line in ((f"line {n} of metrics.jsonl", x) for n, x in enumerate(lines, 1))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{root} is no pretraining run: {error}") from error
    step = latest_step(root / "checkpoints")
    if step is None:
        raise ValueError(f"{root} has no checkpoint yet: wait for the first one")
    state = load_step(root / "checkpoints", step, jax.eval_shape(lambda: init_state(config)))
    return config, dict(state.params), step, history


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    root = pathlib.Path(_RUN.value)
    check_numbers(_MEAN_TOKENS, least=MIN_TOKENS)
    require_place(_OUT.value, folder=True)
    config, params, step, history = _read_run(root)
    corpus = Corpus.open(_CORPUS.value)
    require_corpus(root, corpus)
    manifest = Fields(corpus.manifest, str(corpus.directory / "manifest.json"))
    described = {name: manifest.object(name).to_dict() for name in ("config", "counts")}
    manifest.list("sources")
    params = jax.tree.map(np.asarray, {**params, **fixed_params(config, corpus)})
    rows = (
        corpus.batch(index, 64, config.length, _MEAN_SEED, config.idiom_fraction)[:, :-1]
        for index in range(-(-_MEAN_TOKENS.value // (64 * config.length)))
    )
    means, mean_tokens = activation_means(config.model, params, rows)
    say(f"means over {mean_tokens} tokens")
    validation = evaluate(config, params, corpus)
    provenance = {
        "recipe": config.to_dict(),
        "steps_taken": step,
        "tokens": step * config.batch_size * config.length,
        "mean_tokens": mean_tokens,
        "mean_seed": _MEAN_SEED,
        "validation": validation,
        "corpus": described,
        "versions": versions(),
    }
    tokenizer = (corpus.directory / "tokenizer.json").read_text(encoding="utf-8")
    model = Model(_NAME.value, config.model, params, tokenizer, means, provenance)
    table, search, done = [], default_search("nodes", train=64), counted(len(TASKS))
    for name, task in TASKS.items():
        figures = baseline(prepare(model, task, search), search)
        columns = ("loss_unpruned", "loss_empty", "accuracy_unpruned")
        table.append((name, *(figures[column] for column in columns)))
        done(f"{name} { {column: round(figures[column], 4) for column in columns} }")
    out = pathlib.Path(_OUT.value)
    counts = bigram_counts(config, corpus) if config.model.bigram else None
    size = pack(out / "weights.npz", model, counts=counts, smoothing=config.bigram_smoothing)
    card = model_card(model, corpus.manifest, history, table, size)
    (out / "CARD.md").write_text(card, encoding="utf-8")
    print(f"{out}: {size / 2**20:.2f} MiB, {model.num_nonzero} nonzero parameters")
    tell_next(f"read {out}/CARD.md; in circuitjax/zoo/data the model is a built-in one")


if __name__ == "__main__":
    run_main(main)
