"""The pretraining loop: exact resume, sparsity after every step, honest logs and refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from circuitjax.core import checkpoints
from circuitjax.core.mesh import data_mesh, replicated, shard_rows
from circuitjax.model.bigram import bigram_table, count_bigrams
from circuitjax.model.config import TransformerConfig
from circuitjax.pretrain import train as loop
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.directory import read_recipe, require_corpus
from circuitjax.pretrain.packing import VOCABULARY, Corpus
from circuitjax.pretrain.sparsify import is_sparse
from tests.pretrain.synthetic import write_corpus

MODEL = TransformerConfig(
    num_layers=2, d_model=8, num_heads=2, d_head=4, d_mlp=16, vocab_size=VOCABULARY,
    context_length=8, attention_sinks=True,
)  # fmt: skip
CONFIG = PretrainConfig(
    MODEL, steps=6, batch_size=8, length=8, density=0.25, eval_every=4, checkpoint_every=2,
    eval_rows=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus.open(write_corpus(tmp_path_factory.mktemp("corpus") / "c"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """(parameters, folder) of an uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    return loop.train(CONFIG, corpus, root), root


def lines(root) -> list[dict]:
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def assert_same(found, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(corpus, whole, tmp_path):
    expected, root = whole
    loop.train(CONFIG, corpus, tmp_path, stop_after=3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        # What a killed run leaves: a step past the checkpoint and half a line.
        file.write('{"step": 4, "loss": 9.0}\n{"step": 5, "lo')
    assert_same(loop.train(CONFIG, corpus, tmp_path), expected)
    found, wanted = lines(tmp_path), lines(root)
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "gradient_norm"):
        assert [line[name] for line in found] == [line[name] for line in wanted]
    assert [line["step"] for line in found if "validation_code" in line] == [4, 6]
    # A finished run is left as it is.
    assert_same(loop.train(CONFIG, corpus, tmp_path), expected)
    assert len(lines(tmp_path)) == 6


def test_events_are_written_beside_the_lines(whole):
    pytest.importorskip("tensorboardX")
    assert any((whole[1] / "events").iterdir())


def test_another_run_is_refused(corpus, whole):
    with pytest.raises(ValueError, match="holds another run"):
        loop.train(dataclasses.replace(CONFIG, seed=1), corpus, whole[1])


def test_another_corpus_is_refused(corpus, whole, tmp_path):
    """Also for packing: means and fixed tables are counted on it."""
    other = write_corpus(tmp_path / "other")
    tokens = np.load(other / "code_train.npy")
    tokens[1] = (tokens[1] + 1) % 100
    np.save(other / "code_train.npy", tokens)
    changed = Corpus.open(other)
    assert changed.manifest == corpus.manifest
    with pytest.raises(ValueError, match="was begun with another corpus than"):
        loop.train(CONFIG, changed, whole[1])
    with pytest.raises(ValueError, match="was begun with another corpus than"):
        require_corpus(whole[1], changed)
    require_corpus(whole[1], corpus)
    assert read_recipe(whole[1]) == CONFIG


def test_a_run_of_the_version_before_goes_on(corpus, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    require_corpus(tmp_path, corpus)
    assert read_recipe(tmp_path) == CONFIG
    loop.train(CONFIG, corpus, tmp_path, stop_after=1)


def test_checkpoints_of_nobody_are_not_gone_on_from(corpus, tmp_path):
    loop.train(CONFIG, corpus, tmp_path, stop_after=2)
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        ValueError, match=r"holds checkpoints without their config\.json: put it back"
    ):
        loop.train(CONFIG, corpus, tmp_path)


@pytest.mark.parametrize(("name", "value"), [("steps", 10**15), ("eval_rows", 10**12)])
def test_sizes_out_of_all_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be from 1 to"):
        PretrainConfig.from_dict(CONFIG.to_dict() | {name: value})


def test_a_damaged_config_is_refused(corpus, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="choose another directory") as caught:
        loop.train(CONFIG, corpus, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_divide_is_refused(corpus, tmp_path):
    config = dataclasses.replace(CONFIG, batch_size=9)
    with pytest.raises(ValueError, match="9 rows does not divide by 8 devices"):
        loop.train(config, corpus, tmp_path)


def test_losing_the_numbers_stops_and_the_last_checkpoint_is_good(
    corpus, whole, tmp_path, monkeypatch
):
    def poisoned(config, fixed):
        step = make_step(config, fixed)

        def run(state, rows):
            if int(state.step) == 3:
                bad = jax.tree.map(lambda leaf: leaf * np.nan, state.params)
                state = state.replace(params=bad)
            return step(state, rows)

        return run

    make_step = loop.make_step
    monkeypatch.setattr(loop, "make_step", poisoned)
    with pytest.raises(FloatingPointError, match=r"loss nan.* at step 3"):
        loop.train(CONFIG, corpus, tmp_path)
    monkeypatch.undo()
    assert checkpoints.latest_step(tmp_path / "checkpoints") == 2
    assert_same(loop.train(CONFIG, corpus, tmp_path), whole[0])


def test_parameters_that_are_not_finite_are_never_saved(corpus, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=3.4e38, checkpoint_every=1)
    with pytest.raises(FloatingPointError, match=r"(after|at) step 0"):
        loop.train(config, corpus, tmp_path)
    assert checkpoints.latest_step(tmp_path / "checkpoints") is None


def densities(params) -> list[float]:
    """Of every sparse matrix, layer by layer."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if is_sparse(path):
            parts = np.asarray(leaf) if path[0].key == "layers" else [np.asarray(leaf)]
            found += [np.count_nonzero(part) / part.size for part in parts]
    return found


def test_sparsity_after_every_step(corpus):
    config = dataclasses.replace(CONFIG, steps=8, density=0.1, anneal_fraction=0.5)
    step, state = loop.make_step(config, {}), loop.init_state(config)
    for n in range(config.steps):
        rows = corpus.batch(n, config.batch_size, config.length, config.seed)
        state, _ = step(state, rows)
        density = 1 - 0.9 * min(1, (n + 1) / 4)
        smallest = 1 / 8  # of the smallest matrix, a bias of 8
        assert max(densities(state.params)) <= density + smallest
        embed = np.asarray(state.params["embed"])
        assert np.count_nonzero(embed) <= np.ceil(density * embed.size) + 1
    assert np.count_nonzero(state.params["unembed"]) == np.ceil(0.1 * 8 * VOCABULARY)
    assert np.count_nonzero(state.params["layers"]["attn_norm_scale"]) == 16


def test_eight_devices_take_the_same_step_as_one(corpus):
    rows = corpus.batch(0, 16, 8, 0)
    step = loop.make_step(CONFIG, {})
    alone, metrics = step(loop.init_state(CONFIG), rows)
    mesh = data_mesh()
    assert mesh.shape["data"] == 8
    sharded = shard_rows(mesh, rows)
    assert len(sharded.sharding.device_set) == 8
    assert sharded.addressable_shards[0].data.shape == (2, 9)
    spread, spread_metrics = step(
        jax.device_put(loop.init_state(CONFIG), replicated(mesh)), sharded
    )
    np.testing.assert_allclose(spread_metrics["loss"], metrics["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), spread.params, alone.params
    )


def test_a_learnable_stream_is_learnt_dense_and_sparse(corpus):
    for density in (1.0, 0.5):
        config = dataclasses.replace(
            CONFIG, steps=60, batch_size=16, density=density, learning_rate=0.03
        )
        step, state = loop.make_step(config, {}), loop.init_state(config)
        losses = []
        for n in range(config.steps):
            state, metrics = step(state, corpus.batch(n, 16, 8, config.seed))
            losses.append(float(metrics["loss"]))
        assert losses[0] > 7  # about ln 2048
        assert np.mean(losses[-5:]) < 2.5
        if density == 1:
            assert np.mean(densities(state.params)) > 0.9


def test_the_bigram_table_is_fixed_and_counted_from_the_mixture(corpus):
    config = dataclasses.replace(
        CONFIG, model=dataclasses.replace(MODEL, bigram=True), idiom_fraction=0.75
    )
    assert "bigram" not in loop.init_state(config).params
    assert loop.fixed_params(CONFIG, corpus) == {}
    counts = loop.bigram_counts(config, corpus)
    idioms, code = (corpus.stream(source, "train")[0] for source in ("idioms", "code"))
    # Both streams are equally long, so three idiom tokens are read for each token of code.
    expected = np.rint(count_bigrams([(idioms, 1.0), (code, 1 / 3)], VOCABULARY))
    np.testing.assert_array_equal(counts, expected)
    table = loop.fixed_params(config, corpus)["bigram"]
    np.testing.assert_array_equal(table, bigram_table(expected, config.bigram_smoothing))
