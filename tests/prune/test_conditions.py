"""Conditions: each does what its name says, a mix is the sum of its parts, the cut demands all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.audit.conditions import figures_under
from circuitjax.gated.conditions import answers_under, logits_under, refer_under
from circuitjax.gated.measures import odds_of, task_losses
from circuitjax.model.record import Model
from circuitjax.prune.adversary import attack, starts
from circuitjax.prune.candidates import candidates_of, pick
from circuitjax.prune.certify import certify
from circuitjax.prune.conditions import parse, shares, unseen
from circuitjax.prune.config import Choices, Hyper, SelectionConfig
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import answers, references
from circuitjax.prune.figures import figures
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import assembled
from circuitjax.prune.train import Job
from circuitjax.prune.trial import GateTrial
from tests.prune.planted import PLANTED, SEARCH, TASK, planted_model, planted_problem

MIXED = {"train_under": "mean:2,resample,supersets", "hold_under": "mean,resample,supersets"}


def search_under(**more):
    sizes = {"train": 64, "validation": 24, "test": 40, "steps": 60, "batch_size": 16, "chunk": 20}
    return default_search("nodes", **{**sizes, **MIXED, **more})


@pytest.fixture(scope="module")
def problem():
    return prepare(planted_model(), TASK, search_under())


def gates_of(model, *names):
    return np.isin(model.names(), names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean,noise", "'noise'; choose conditions from mean"),
        ("mean,mean:2", "'mean' twice"),
        ("mean:-1", r"weight '-1'; it must be in \[0, inf\)"),
        ("mean:much", "weight 'much'"),
        ("mean:0,resample:0", "sum to nothing"),
    ],
)
def test_what_is_no_mix_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("items", [3, 4, 7, 16, 33])
def test_every_condition_gets_its_share_and_none_goes_without(items):
    found = shares([6, 1, 0.01], items)
    assert sum(found) == items
    assert min(found) >= 1
    assert found[0] == max(found)
    assert shares([2, 1, 1], 16) == (8, 4, 4)
    with pytest.raises(ValueError, match="must be at least 3"):
        shares([1, 1, 1], 2)


def test_what_training_never_sees_is_told():
    assert unseen(Choices(train_under="mean", hold_under="mean,resample")) == ("resample",)
    assert unseen(Choices(hold_under="supersets,mean")) == ("supersets",)
    assert unseen(Choices(ablation="zero")) == ()


def test_short_and_long_forms_are_not_both_given():
    with pytest.raises(ValueError, match="ablation=zero and hold_under=mean are both given"):
        default_search("nodes", ablation="zero", hold_under="mean")


def test_what_is_left_in_is_open_and_nothing_else(problem):
    model, batch = problem.whole, problem.batches.whole(problem.validation)
    gates = gates_of(model, *PLANTED).astype(np.float32)
    reference = refer_under("supersets", model, batch, jax.random.key(0), full=False)
    left = np.asarray(reference.left)
    assert set(np.unique(left)) == {0.0, 1.0}
    found = logits_under(model, gates, batch, reference)
    np.testing.assert_allclose(found, model.logits(np.maximum(gates, left), batch), atol=1e-5)
    every = reference._replace(left=jnp.ones_like(reference.left))
    np.testing.assert_allclose(
        logits_under(model, gates, batch, every), model.full(batch), atol=1e-5
    )
    other = refer_under("supersets", model, batch, jax.random.key(1), full=False)
    assert np.mean(left != np.asarray(other.left)) > 0.05


def undecided() -> Model:
    """The planted model with two more pairs of neurons, which undo each other."""
    model = planted_model(8.0)
    params = jax.tree.map(np.array, dict(model.params))
    stack = params["layers"]
    stack["mlp_in"][1, 1, 2:6] = 1.0, -1.0, 1.0, -1.0
    stack["mlp_in"][1, 0, 2:6] = stack["mlp_in"][1, 2:, 2:6] = 0.0
    stack["mlp_out"][1, 2:6] = 0.0
    stack["mlp_out"][1, 2:6, 2] = 0.5, -0.5, -0.5, 0.5
    return dataclasses.replace(model, params=params, name="undecided")


def test_an_adversary_breaks_a_fake_and_not_the_circuit():
    """One of two pairs that undo each other does the task alone, until the other one is left in."""
    problem = prepare(undecided(), TASK, search_under())
    model, batch = problem.whole, problem.batches.whole(problem.validation)
    (pair,) = references(model, [batch], full=False, condition="adversary")
    shared = [name for name in PLANTED if "post_act" not in name]
    true = gates_of(model, *PLANTED)
    fake = gates_of(model, *shared, "1.mlp.post_act.2", "1.mlp.post_act.3")
    begin = starts(model.num_gates, 2)

    def loss(gates, left):
        reference = pair[1]._replace(left=jnp.asarray(left, jnp.float32))
        odds = odds_of(
            answers_under(model, jnp.asarray(gates, jnp.float32), batch, reference), batch
        )
        return float(jnp.mean(task_losses(odds)))

    nothing = np.zeros(model.num_gates)
    assert loss(true, nothing) < loss(fake, nothing) < 0.15
    left, against_fake, _ = attack(model, fake, *pair, begin, kind="task", steps=6)
    _, against_true, _ = attack(model, true, *pair, begin, kind="task", steps=6)
    assert against_fake > 0.6
    assert against_true < 0.1
    assert set(np.unique(left)) <= {0.0, 1.0}
    assert against_fake == pytest.approx(loss(fake, left), abs=1e-5)


def test_a_mix_is_the_mean_over_the_items_of_its_conditions(problem):
    search = search_under(calibrate="off", control="count")
    objective = objective_of(problem, search)
    assert objective.under == (("mean", 8), ("resample", 4), ("supersets", 4))
    batches = objective.draw(problem.items(*objective.sizes), jax.random.key(2))
    assert [batch.size for batch in batches] == [16, 8, 8]
    rng, key = np.random.default_rng(3), jax.random.key(4)
    z = jnp.asarray(rng.random(problem.whole.num_gates) < 0.6, jnp.float32)
    found, parts = objective.loss_of(z, Hyper(), problem.data, batches, key)
    each = []
    for number, ((name, _), model, batch) in enumerate(
        zip(objective.under, problem.data, batches, strict=True)
    ):
        reference = refer_under(name, model, batch, jax.random.fold_in(key, number), full=False)
        each.append(task_losses(odds_of(answers_under(model, z, batch, reference), batch)))
    assert float(found) == pytest.approx(float(jnp.mean(jnp.concatenate(each))), rel=1e-5)
    worst = max(float(jnp.mean(losses)) for losses in each)
    assert float(parts["worst"]) == pytest.approx(worst, rel=1e-5)


@pytest.mark.parametrize("batch_size", [4, 5, 7])
def test_every_condition_of_a_small_step_draws_what_it_is_given(batch_size):
    search = search_under(calibrate="off", control="count", batch_size=batch_size)
    problem = prepare(planted_model(), TASK, search)
    objective = objective_of(problem, search)
    batches = objective.draw(problem.items(*objective.sizes), jax.random.key(2))
    assert [batch.size for batch in batches] == [2 * size for size in objective.sizes]
    assert sum(objective.sizes) == batch_size


def test_what_the_adversary_leaves_in_climbs_the_loss_from_step_to_step():
    search = search_under(train_under="mean,adversary", hold_under="mean", calibrate="off")
    problem = prepare(planted_model(), TASK, search)
    objective = objective_of(problem, search)
    hyper = Hyper(init_noise_bias=0.1, init_noise_scale=0.5)
    tau, multipliers = objective.init(jax.random.key(0), hyper, problem.data)
    batches = objective.draw(problem.items(*objective.sizes), jax.random.key(1))
    z = (tau["gates"] > 0).astype(jnp.float32)

    def attacked(left):
        return objective.loss_of(z, hyper, problem.data, batches, jax.random.key(2), left)[0]

    step = jax.jit(jax.value_and_grad(attacked))
    losses, left = [], multipliers
    for _ in range(8):
        value, slope = step(left["left"])
        losses.append(float(value))
        gradient = {"control": jnp.zeros(()), "left": slope}
        left = objective.ascend(left, gradient, hyper)
        assert 0 <= float(left["left"].min()) <= float(left["left"].max()) <= 1
    assert losses[-1] > losses[0]


def test_the_cut_sees_the_worst_condition_under_one_calibration(problem):
    rng = np.random.default_rng(5)
    ranks = rng.permutation(problem.whole.num_gates).astype(np.int32)
    found = Prober(problem, [ranks]).answers(problem.validation, 0, [3, 40])
    count = problem.validation.size
    for number, under in enumerate(problem.conditions):
        rows = [ranks < 3, ranks < 40]
        alone = answers(
            under.whole, under.batches, problem.validation, rows, condition=under.name
        ).odds
        mine = found.odds[:, number * count : (number + 1) * count]
        np.testing.assert_allclose(mine, alone, atol=1e-4)
    plain = figures(problem, SelectionConfig(calibrate="off"), found)
    losses = np.logaddexp(0, -found.odds).reshape(2, 3, count).mean(axis=2)
    np.testing.assert_allclose([f.raw for f in plain], losses.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose([f.plain_aim for f in plain], losses.max(axis=1), rtol=1e-5)
    fitted = figures(problem, SelectionConfig(), found)
    assert all(f.scale > 0 for f in fitted)
    # One calibration for all: no better than each condition's own would be.
    for index, at in enumerate(fitted):
        own = [
            figures(
                problem, SelectionConfig(),
                type(found)(*(x[index : index + 1, n * count : (n + 1) * count] for x in found)),
                conditions=1,
            )[0].loss
            for n in range(3)
        ]  # fmt: skip
        assert at.loss >= max(own) - 1e-4


def test_the_cut_sees_each_set_against_its_own_adversary():
    search = search_under(train_under="mean", hold_under="mean,adversary")
    problem = prepare(undecided(), TASK, search)
    shared = [name for name in PLANTED if "post_act" not in name]
    fake = gates_of(problem.whole, *shared, "1.mlp.post_act.2", "1.mlp.post_act.3")
    ranks = np.argsort(np.argsort(~fake, kind="stable")).astype(np.int32)
    found = Prober(problem, [ranks]).answers(problem.validation, 0, [int(fake.sum())])
    losses = np.logaddexp(0, -found.odds).reshape(2, -1).mean(axis=1)
    assert losses[0] < 0.15
    assert losses[1] > 0.6


@pytest.fixture(scope="module")
def divided():
    """A task of three templates, of whose second training is to know nothing."""

    def named(name):
        def sampler(rng):
            return TASK.samplers[0](rng)

        sampler.__name__ = name
        return sampler

    return dataclasses.replace(TASK, samplers=tuple(named(name) for name in "abc"))


def test_the_cut_is_asked_about_templates_that_training_never_sees(divided):
    search = search_under(train_under="mean", hold_under="mean,templates")
    problem = prepare(planted_model(), divided, search)
    assert not problem.train.apart.any()
    apart = problem.validation.apart
    assert 0 < apart.sum() < apart.size
    opened = gates_of(problem.whole, *PLANTED[:-1])  # no circuit: losses differ from pair to pair
    prober = Prober(problem, [np.argsort(np.argsort(~opened, kind="stable")).astype(np.int32)])
    found = prober.answers(problem.validation, 0, [int(opened.sum())])
    losses = np.logaddexp(0, -found.odds[0, : apart.size])
    plain = dataclasses.replace(search.selection, calibrate="off")
    (at,) = figures(problem, plain, found)
    assert at.aim == pytest.approx(max(losses.mean(), losses[apart].mean()), abs=1e-6)
    assert unseen(search.choices) == ()
    circuit = find_circuit(planted_model(), divided, search=search)
    said = figures_under(problem, search, circuit)["templates"]
    assert said.items == problem.test.apart.sum() // 2


def test_templates_of_a_task_without_any_are_refused():
    with pytest.raises(
        ValueError, match="fewer than two templates: leave templates out of hold_under"
    ):
        prepare(planted_model(), TASK, search_under(hold_under="mean,templates"))


def test_elimination_looks_at_the_worst_condition(problem):
    trial = GateTrial(problem, problem.train, "task")
    opened = gates_of(problem.whole, *PLANTED)
    some = problem.train
    alone = [
        answers(u.whole, u.batches, some, [opened], condition=u.name).losses("binary")[0]
        for u in problem.conditions
    ]
    assert trial.loss(opened) == pytest.approx(max(alone), abs=2e-5)


@pytest.mark.parametrize("grain", ["nodes", pytest.param("weights", marks=pytest.mark.slow)])
def test_the_planted_circuit_holds_under_all_and_is_found(grain):
    search = default_search(
        grain, **{**MIXED, "train": 64, "validation": 24, "test": 40, "batch_size": 16},
        control="hold", steps=100, target_loss=0.05, eliminate=True,
    )  # fmt: skip
    problem = prepare(planted_model(), TASK, search)
    circuit = find_circuit(planted_model(), TASK, search=search)
    assert circuit.provenance["reached"]
    assert set(circuit.nodes()) <= set(PLANTED)
    view = circuit.view(problem.model)
    for under in problem.conditions:
        model = dataclasses.replace(
            view.model, ablation=under.whole.ablation, held=under.whole.held
        )
        found = answers(model, under.batches, problem.test, [view.gates], condition=under.name)
        assert found.losses("binary")[0] < 0.2, under.name


def test_a_certificate_says_what_was_tried_and_no_gate_can_go():
    problem = planted_problem()
    search = dataclasses.replace(SEARCH, selection=SelectionConfig(value=0.1, calibrate="off"))
    jobs = [Job(0, Hyper(0.01, init_noise_scale=0.05, lr=0.02))]
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    found = pick(candidates_of(problem, search, jobs, state), search)
    surplus = found.choice.opened | gates_of(problem.whole, *PLANTED, "0.attn.v.h1.c3")
    surplus[:40] = True
    choice, certificate = certify(
        problem, search, dataclasses.replace(found.choice, opened=surplus)
    )
    assert certificate.kind == "sampled 2-minimal"
    assert certificate.closed == surplus.sum() - choice.opened.sum() > 0
    places = np.flatnonzero(choice.opened)
    assert certificate.singles == len(places)
    rows = np.repeat(choice.opened[None], len(places), axis=0)
    rows[np.arange(len(places)), places] = False
    found = answers(problem.whole, problem.batches, problem.validation, [choice.opened, *rows])
    losses = found.losses("binary")
    assert losses[0] <= 0.1 < losses[1:].min()
    assert choice.loss == pytest.approx(losses[0], abs=1e-5)
    assert certificate.least is None or 0.1 < certificate.least <= losses[1:].min() + 1e-5


def test_nothing_is_folded_where_another_condition_fills_it_differently():
    several = assembled(planted_model(), Choices(hold_under="mean,zero"), _sets(planted_problem()))
    assert not several.whole.folds
    alone = assembled(planted_model(), Choices(), _sets(planted_problem()))
    assert alone.whole.folds
    assert alone.held == alone.mixed == ()


def _sets(problem):
    return {name: getattr(problem, name) for name in ("train", "validation", "test")}
