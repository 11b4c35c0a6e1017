"""Every cell of the table: one step's loss and gradient equal a slow loop; what is refused is a line.

The slow loop (`slow_loop.py`) runs one prompt at a time and knows nothing of batches, rows or
protocols. What a step minimises is a function of the gates z; how z follows from scores, and what
open gates cost, is tested beside it, for every kind of gate and control.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import odds_of
from circuitjax.gated.replacement import donors
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.capabilities import RULES, Case, answers, refuse
from circuitjax.prune.config import Choices, Hyper, SelectionConfig
from circuitjax.prune.objective import Objective
from circuitjax.prune.opening import CONTROLS, GATES
from circuitjax.prune.problem import gated_model
from circuitjax.tasks.contrast import ContrastTask, Example
from tests.prune import planted, slow_loop
from tests.prune.slow_loop import CONFIG

ABLATIONS = ("mean", "zero", "resample", "interchange")
LENGTHS = (6, 5, 5, 6)


@pytest.fixture(scope="module")
def model() -> Model:
    """Every parameter random, and means that are no one's activations."""
    rng = np.random.default_rng(0)
    shaped = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.6, leaf.shape).astype(np.float32), shaped)
    means = {s: rng.normal(0, 0.5, n).astype(np.float32) for s, n in shapes(CONFIG).items()}
    return Model("random", CONFIG, params, means=means)


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Four examples without pairs, of two lengths, with several right completions."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, CONFIG.vocab_size, (4, 2, 6)).astype(np.int32)
    last = np.array(LENGTHS, np.int32)[:, None] - 1
    right = np.array([[0, 1], [2, -1], [3, 4], [5, -1]], np.int32)
    wrong = np.array([[2, 3, 4], [0, -1, -1], [5, 6, -1], [7, 8, 1]], np.int32)
    return Examples(*(jnp.asarray(x) for x in (tokens, last, right, wrong)))


_held = jax.jit(lambda params, tokens: slow_loop.run(params, tokens)[1])
_full = jax.jit(lambda params, tokens: slow_loop.run(params, tokens)[0])


def per_token(model, grain, tokens):
    """What every part held in a run of one prompt, as `slow_loop` takes it."""
    held = _held(model.params, tokens)
    if grain == "edges":
        return slow_loop.writers(model.params, tokens, held)
    return {site: jnp.stack(rows) for site, rows in held.items()}


def constant(model, gated, grain, ablation):
    if grain == "edges":
        return [block for group in gated.held.blocks() for block in group[:, 0]]
    means = model.means if ablation == "mean" else jax.tree.map(np.zeros_like, model.means)
    held = {site: jnp.asarray(value)[:, None] for site, value in means.items()}
    return {**held, "attn.mixed": held["attn.v"]}


def replacements(model, gated, grain, ablation, examples, key):
    """For each example what closed parts hold."""
    tokens = np.asarray(examples.tokens)
    last = np.asarray(examples.positions)[:, -1]
    if ablation in ("mean", "zero"):
        return [constant(model, gated, grain, ablation)] * len(tokens)
    if ablation == "interchange":
        return [per_token(model, grain, row[1]) for row in tokens]
    chosen = np.asarray(donors(key, jnp.asarray(last)))
    assert all(chosen != np.arange(len(chosen)))
    found = []
    for number, donor in enumerate(chosen):
        held = per_token(model, grain, tokens[donor, 0])
        places = np.clip(np.arange(tokens.shape[-1]) + last[donor] - last[number], 0, 5)
        found.append(jax.tree.map(lambda x, p=places: x[..., p, :], held))
    return found


def slow_logits(model, gated, grain, tokens, z, held):
    """Logits `[T, V]` of one prompt from flat gates."""
    if grain == "nodes":
        return slow_loop.nodes(model.params, tokens, gated.tree(z), held)
    if grain == "weights":
        parts, index = gated.index.split(z), gated.index
        open_z = {}
        for family in FAMILIES:
            flat = jnp.ones(int(np.prod(family.shape(CONFIG))))
            places = np.asarray(index.flat[family.name])
            flat = flat.at[places].set(parts[family.name], mode="drop")
            open_z[family.name] = flat.reshape(family.shape(CONFIG))
        return slow_loop.weights(model.params, tokens, open_z, held)
    graph = residual_graph(CONFIG)
    z = jnp.where(gated.exists(), z, 1.0)
    named = {
        (graph.writers[w], graph.readers[r]): z[number] for number, (w, r) in enumerate(graph.edges)
    }
    return slow_loop.edges(model.params, tokens, named, held)


@pytest.fixture(scope="module")
def slow_programs(model, examples):
    """Of a grain: the logits of one prompt at its answer, and their derivative, for any replacement."""

    @functools.cache
    def programs(grain):
        # Which gate is which part of the model does not depend on what closed parts hold.
        gated, _ = gated_model(model, Choices(grain=grain, ablation="zero"), examples)

        @jax.jit
        def one(z, number, row, replaced):
            return slow_logits(model, gated, grain, row, z, replaced)[number - 1]

        @jax.jit
        def back(z, number, row, replaced, slope):
            return jax.vjp(lambda z: one(z, number, row, replaced), z)[1](slope)[0]

        return one, back

    return programs


def at_each_token(grain, held):
    """A constant as what is held at each token: one program then serves all kinds of replacement."""
    return jax.tree.map(lambda x: np.broadcast_to(x, (*x.shape[:-2], 6, x.shape[-1])), held)


def slow_loss(logits, whole, examples, minimise, kl_weight):
    """Mean over examples of task loss, KL, or both, from each one's logits at its answer."""
    task, kl = 0.0, 0.0
    for number, (row, full) in enumerate(zip(logits, whole, strict=True)):
        sides = [
            np.array([int(t) for t in np.asarray(side)[number] if t >= 0])
            for side in (examples.right, examples.wrong)
        ]
        right, wrong = (jnp.log(jnp.sum(jnp.exp(row[side]))) for side in sides)
        task += jnp.log(1 + jnp.exp(wrong - right)) / len(logits)
        p, q = jax.nn.softmax(full), jax.nn.softmax(row)
        kl += jnp.sum(p * (jnp.log(p) - jnp.log(q))) / len(logits)
    return {"task": task, "kl": kl, "both": task + kl_weight * kl}[minimise]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
def test_a_step_minimises_what_a_slow_loop_says(model, examples, slow_programs, grain, ablation):
    gated, _ = gated_model(model, Choices(grain=grain, ablation=ablation), examples)
    rng = np.random.default_rng(2)
    # Every node keeps an open weight that enters it, so that none is closed as a whole.
    z = jnp.asarray(np.where(rng.random(gated.num_gates) < 0.8, 1.0, 0.3), jnp.float32)
    key, hyper = jax.random.key(3), Hyper(kl_weight=0.7)
    held = replacements(model, gated, grain, ablation, examples, key)
    tokens = np.asarray(examples.tokens)[:, 0]

    one, back = slow_programs(grain)
    at_each = [at_each_token(grain, replaced) for replaced in held]
    rows = [(LENGTHS[m], tokens[m], at_each[m]) for m in range(len(tokens))]
    logits = [one(z, *row) for row in rows]
    whole = [_full(model.params, row)[length - 1] for length, row, _ in rows]
    for minimise in ("task", "kl", "both"):
        objective = Objective("heaviside", minimise, "count", "binary", False, False, "loss", 10, 4)

        @jax.jit
        @jax.value_and_grad
        def loss_of(z, gated, objective=objective):
            return objective.loss_of(z, hyper, gated, examples, key)[0]

        found, slope = loss_of(z, gated)
        expected, by_logits = jax.value_and_grad(slow_loss)(
            logits, whole, examples, minimise, hyper.kl_weight
        )
        gradient = sum(back(z, *row, g) for row, g in zip(rows, by_logits, strict=True))
        real = gated.exists()
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(slope[real], gradient[real], rtol=2e-3, atol=2e-5)
        assert np.abs(gradient[real]).max() > 1e-3


@pytest.mark.parametrize("minimise", ["task", "both"])
def test_the_task_loss_of_pairs_is_one_under_their_best_calibration(model, minimise):
    rng = np.random.default_rng(6)
    tokens = rng.integers(0, CONFIG.vocab_size, (12, 2, 6)).astype(np.int32)
    answers = rng.permuted(np.tile(np.arange(CONFIG.vocab_size), (12, 1)), axis=1)[:, :2]
    pairs = Examples.of_pairs(tokens, np.full((12, 2), 5), answers)
    gated, _ = gated_model(model, Choices(), pairs)
    z = jnp.asarray(rng.random(gated.num_gates) < 0.7, jnp.float32)
    objective = Objective("heaviside", minimise, "count", "binary", False, True, "loss", 10, 12)
    found, parts = objective.loss_of(z, Hyper(kl_weight=0.5), gated, pairs, jax.random.key(0))
    odds = odds_of(gated.answers(z, pairs), pairs)
    best = float(calibrate(odds).loss)
    assert best < float(jnp.mean(jax.nn.softplus(-odds))) - 0.05
    assert best - 1e-5 < float(parts["task"]) < best + 1e-3
    kl = 0.5 * float(parts["kl"]) if minimise == "both" else 0.0
    assert float(found) == pytest.approx(float(parts["task"]) + kl, rel=1e-6)
    # Items that share a calibration may not be taken apart.
    assert not objective.separable(gated)
    assert dataclasses.replace(objective, calibrated=False).separable(gated)


@pytest.mark.parametrize("control", list(CONTROLS))
@pytest.mark.parametrize("gate", list(GATES))
@pytest.mark.parametrize("owners", [False, True])
def test_scores_give_gates_and_open_gates_cost(model, examples, gate, control, owners):
    """The whole loss is that of the drawn gates plus the control's cost of the expected ones."""
    gated, _ = gated_model(model, Choices(grain="edges", ablation="interchange"), examples)
    objective = Objective(gate, "task", control, "binary", owners, False, "loss", 10, 4)
    hyper = Hyper(
        k_coef=0.01,
        heaviside_temp=0.5,
        target_sparsity=0.4,
        target_warmup_frac=0.5,
        aim=0.5,
        held=0.4,
    )
    key, step = jax.random.key(4), jnp.asarray(2)
    tau, multipliers = objective.init(jax.random.key(5), Hyper(init_noise_scale=0.5), gated)
    multipliers = jax.tree.map(lambda m: m + 0.3, multipliers)
    found, metrics = objective.loss(tau, multipliers, hyper, (key, step), gated, examples)

    z = GATES[gate].sample(jax.random.fold_in(key, 0), tau["gates"], hyper)
    chance = GATES[gate].chance(tau["gates"], hyper)
    if owners:
        writer = residual_graph(CONFIG).sources
        z = z * GATES[gate].sample(jax.random.fold_in(key, 1), tau["owners"], hyper)[writer]
        chance = chance * GATES[gate].chance(tau["owners"], hyper)[writer]
    task = objective.loss_of(z, hyper, gated, examples, jax.random.fold_in(key, 2))[0]
    real = gated.exists()
    opened, total = float(chance[real].sum()), int(real.sum())
    if control == "count":
        cost = 0.01 * opened
    elif control == "hold":
        cost = 0.01 * np.exp(0.3) * opened + 0.0  # its part in the multiplier has no value
    else:
        target = 0.4 * min(3 / 5, 1)
        excess = 1 - opened / total - target
        cost = 0.3 * excess + (4.0 * total + 0.3) * excess**2
    assert float(found) == pytest.approx(float(task) + cost, rel=1e-4)
    assert float(metrics["k"]) == pytest.approx(opened, rel=1e-5)
    if gate == "heaviside":
        assert set(np.unique(z)) <= {0.0, 1.0}
        slope = jax.grad(lambda t: objective.chances(t, hyper, gated).sum())(tau)["gates"]
        s = jax.nn.sigmoid(tau["gates"] / 0.5)
        expected = s * (1 - s) / 0.5
        if owners:
            expected = expected * GATES[gate].chance(tau["owners"], hyper)[writer]
        np.testing.assert_allclose(slope, expected, rtol=1e-4)


TASK = ContrastTask("contrast", "", pool=(Example("ab", "cb", ("x",), ("y",)),))


def case(selection=None, **choices) -> Case:
    return Case(Choices(**choices), selection or SelectionConfig(), CONFIG, "contrast", True)


REFUSED = {
    "grain=edges": case(grain="edges")._replace(
        config=dataclasses.replace(CONFIG, residual_activation="relu")
    ),
    "ablation=interchange": case(ablation="interchange")._replace(corrupts=False),
    "ranking=variance": case(grain="weights", ranking="variance"),
    "ranking (or warm_start)=eap_ig_inputs": case(
        grain="edges", ablation="mean", ranking="eap_ig_inputs"
    ),
    "ranking (or warm_start)=eap_ig_activations": case(warm_start="eap_ig_activations"),
    "ranking (or warm_start)=gim": case(grain="weights", ranking="gim"),
    "ranking=eliminated": case(ranking="eliminated"),
    "selection=greedy": case(SelectionConfig(order="greedy")),
    "threshold=match_soft": case(SelectionConfig("match_soft")),
    "eliminate": case(SelectionConfig("edges", 3, eliminate=True), control="count"),
    "control=hold": case(SelectionConfig("edges", 3), control="hold"),
    "calibration": case(loss="vocabulary"),
    "gates on owners": case(owners=True),
    "tie_qk": case(grain="edges", tie_qk=True),
    "units (or coarse)=head or block": case(grain="weights", coarse="head"),
    "coarse with units": case(grain="edges", coarse="block", owners=True),
    "gates on owners with units": case(grain="edges", units="block", owners=True),
    "tie_qk with units": case(units="head", tie_qk=True),
    "ablation=resample": case(ablation="resample")._replace(batch_size=1),
    "condition frozen_norms": case(hold_under="mean,frozen_norms")._replace(
        config=dataclasses.replace(CONFIG, norm="none")
    ),
    "condition templates": case(train_under="templates", hold_under="mean"),
    "mean ablation": case()._replace(has_means=False),
}


def test_every_rule_refuses_its_case_in_one_line():
    assert len(REFUSED) == len(RULES)
    for rule, (name, asked) in zip(RULES, REFUSED.items(), strict=True):
        assert rule.what.startswith(name)
        assert rule.holds(asked)
        assert "\n" not in rule.what + rule.why
        others = [other.what for other in RULES if other is not rule and other.holds(asked)]
        assert not others


def test_what_no_rule_names_is_allowed():
    known = answers()
    for grain, gate, ablation, minimise, control in itertools.product(
        known["grain"], known["gate"], known["ablation"], known["minimise"], known["control"]
    ):
        choices = Choices(grain, gate, ablation, minimise, control)
        refuse(choices, SelectionConfig(calibrate="off"), CONFIG, TASK)
        refuse(choices, SelectionConfig("kl", 0.1, "off"), CONFIG, TASK)


def test_of_a_pair_each_prompt_is_an_example_of_the_step():
    resample, settings = Choices(ablation="resample"), SelectionConfig(calibrate="off")
    refuse(resample, settings, CONFIG, planted.TASK, batch_size=1)
    refuse(resample, settings, CONFIG, TASK, batch_size=2)
    with pytest.raises(ValueError, match=r"^ablation=resample with one example a step cannot be"):
        refuse(resample, settings, CONFIG, TASK, batch_size=1)


def test_refusals_name_the_value_and_the_mend():
    settings = SelectionConfig(calibrate="off")
    with pytest.raises(ValueError, match=r"^gate is 'ajar'; choose one of \('heaviside', "):
        refuse(Choices(gate="ajar"), settings, CONFIG, TASK)
    plain = ContrastTask("plain", "", pool=(Example("ab", "ab", ("x",), ("y",)),))
    with pytest.raises(ValueError, match="needs corrupted prompts, and task 'plain' has none"):
        refuse(Choices(ablation="interchange"), settings, CONFIG, plain)
    with pytest.raises(ValueError, match=r"^ranking=variance .* cannot be: only nodes have an act"):
        refuse(Choices(grain="edges", ranking="variance"), settings, CONFIG, TASK)
