"""A circuit on its task's whole domain, against the same prompts run one by one through the model."""

import itertools

import numpy as np
import pytest

from circuitjax.audit.exhaustive import exhaustive
from circuitjax.audit.measure import Measure
from circuitjax.core.statistics import clopper_pearson
from circuitjax.tasks.splits import splitter
from circuitjax.tasks.tokenizer import Tokenizer
from tests.audit.planted_audit import circuit_of, measure
from tests.prune.planted import LETTERS, PLANTED, SEARCH, TASK, planted_model, planted_problem

ONE_NEURON = tuple(name for name in PLANTED if name != "1.mlp.post_act.1")


def by_hand(circuit):
    """(prompt, odds of what is right) of every prompt of the test split, calibrated."""
    place = splitter(TASK)
    tokenizer = Tokenizer.from_json(planted_model().tokenizer_json)
    texts = ["".join(letters) for letters in itertools.product(LETTERS, repeat=3)]
    prompts = [
        f"{first}-{text}"
        for text in texts
        for first in "AB"
        if all(place(f"{one}-{text}") == "test" for one in "AB")
    ]
    rows = np.array([[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts])
    logits = np.asarray(circuit.logits(planted_model(), rows, np.full((len(rows), 1), 5)))[:, 0]
    x, y = (tokenizer.token_id(text) for text in "xy")
    difference = circuit.scale * (logits[:, x] - logits[:, y]) + circuit.shift
    sides = np.array([1.0 if prompt[0] == "A" else -1.0 for prompt in prompts])
    return dict(zip(prompts, difference * sides, strict=True))


@pytest.mark.parametrize("names", [PLANTED, ONE_NEURON])
def test_every_prompt_of_the_split_is_run_once(names):
    circuit = circuit_of(names, scale=1.5, shift=0.25)
    found = exhaustive(TASK, planted_problem(), SEARCH, measure(circuit), circuit, 10**6)
    odds = by_hand(circuit)
    assert found.exact
    assert (found.prompts, found.items) == (len(odds), len(odds) // 2)
    values = np.array(list(odds.values()))
    assert found.right == pytest.approx(np.mean(values > 0))
    assert found.loss == pytest.approx(np.mean(np.logaddexp(0, -values)), abs=1e-4)
    assert found.low == found.high == found.items_right <= found.right
    worst = [one.odds for one in found.worst]
    assert worst == sorted(worst)
    np.testing.assert_allclose(worst, np.sort(values)[:10], atol=1e-3)
    for one in found.worst:
        prompt = one.prompt.replace(" ", "")  # this tokenizer puts blanks between its tokens
        assert odds[prompt] == pytest.approx(one.odds, abs=1e-3)
        assert (one.right, one.wrong) == (("x", "y") if prompt[0] == "A" else ("y", "x"))
        assert one.odds_model > 2  # the whole model does the task


def test_a_sample_has_an_interval_of_the_share_of_pairs():
    circuit = circuit_of(PLANTED)
    found = exhaustive(TASK, planted_problem(), SEARCH, measure(circuit), circuit, 400, 200)
    assert not found.exact
    assert (found.prompts, found.items) == (200, 100)
    right = round(found.items_right * 100)
    assert (found.low, found.high) == pytest.approx(clopper_pearson(right, 100))
    assert found.loss_low <= found.loss <= found.loss_high


def test_without_calibration_the_stored_one_is_not_used():
    plain = Measure("task", 0.15)
    both = [
        exhaustive(TASK, planted_problem(), SEARCH, plain, circuit_of(PLANTED, scale=s), 100).loss
        for s in (1.0, 9.0)
    ]
    assert both[0] == both[1]
