"""Ask and tell: pure, resumable, better than chance, away from failures, and strict about its input."""

import dataclasses

import numpy as np
import pytest

from circuitjax.tune import carbs
from circuitjax.tune.carbs import (
    CarbsConfig,
    Observation,
    ask,
    best,
    expected_best,
    from_json,
    front,
    start,
    tell,
    to_json,
)
from circuitjax.tune.space import Dimension, Space
from tests.tune.searches import FLAT, SPACE, bowl, quadratic, run, search


@pytest.fixture(scope="module")
def halfway():
    """Two rounds told, failures among them, and five suggestions still running."""
    state = search(SPACE, 2, cost=lambda p: p["count"], fails=lambda p: p["share"] > 0.5)
    return ask(state, 5)[0]


def test_asking_changes_nothing_and_repeats_itself(halfway):
    before = to_json(halfway)
    first, again = ask(halfway, 3), ask(halfway, 3)
    assert first == again
    assert to_json(halfway) == before
    assert first[0].suggestions == (*halfway.suggestions, *first[1])


def test_eight_at_once_are_eight_in_turn(halfway):
    together = ask(halfway, 8)[0]
    for _ in range(8):
        halfway = ask(halfway)[0]
    assert halfway == together


def test_json_there_and_back(halfway):
    back = from_json(to_json(halfway), halfway.config, halfway.space)
    assert back == halfway
    assert ask(back, 3) == ask(halfway, 3)
    for part in (dataclasses.fields(halfway), halfway.pending):
        assert part


def test_another_seed_draws_otherwise():
    one, other = (ask(start(CarbsConfig(), SPACE, seed), 3)[1] for seed in (0, 1))
    assert one[0] == other[0]
    assert one[1].params != other[1].params


def test_a_search_read_back_midway_ends_the_same():
    through = search(SPACE, 5)
    state = start(CarbsConfig(), SPACE, 0)
    for i in range(5):
        state, suggestions = ask(state, 8)
        if i == 2:  # stopped while eight were running
            state = from_json(to_json(state), CarbsConfig(), SPACE)
            suggestions = state.pending
        state = run(state, suggestions)
    assert state == through


def test_the_order_of_telling_does_not_matter():
    state, suggestions = ask(start(CarbsConfig(), SPACE, 0), 8)
    at_once = run(state, suggestions)
    backwards = run(run(state, suggestions[:2:-1]), suggestions[2::-1])
    assert backwards == at_once
    assert backwards.pending == ()


def test_first_suggestions_are_the_centre_and_draws_around_it():
    _, suggestions = ask(start(CarbsConfig(), FLAT, 0), 400)
    assert suggestions[0].params == FLAT.centre
    assert suggestions[0].origin == "centre"
    assert {s.origin for s in suggestions[1:]} == {"first"}
    draws = np.array([FLAT.to_basic(s.params) for s in suggestions[1:]])
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(draws.std(axis=0), 0.3, atol=0.04)


def test_every_suggestion_is_within_the_space(halfway):
    for suggestion in ask(halfway, 8)[0].suggestions:
        SPACE.to_basic(suggestion.params)
        assert type(suggestion.params["count"]) is int


def test_running_suggestions_push_the_next_ones_away():
    state = search(FLAT, 4, output=quadratic)
    points = [FLAT.to_basic(s.params) for s in ask(state, 8)[1] if s.origin == "model"]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]]
    assert min(apart) > 0.02


def test_beats_random_search_by_far():
    ratios = []
    for seed in range(3):
        found = best(search(FLAT, 6, seed=seed, output=quadratic))
        draws = np.random.default_rng(seed).uniform(-2, 2, (48, 4))
        luck = min(quadratic(dict(enumerate(row))) for row in draws)
        ratios.append(found.output / luck)
    assert max(ratios) < 0.5
    assert np.median(ratios) < 0.1


@pytest.mark.parametrize("wobble", [0.02, 0.3])
def test_costs_that_mean_nothing_do_no_harm(wobble):
    noise = np.random.default_rng(0)
    state = search(
        FLAT, 6, output=quadratic, cost=lambda params: 90 * np.exp(wobble * noise.normal())
    )
    assert best(state).output < 0.15 * quadratic(FLAT.centre)
    if wobble <= 0.02:  # within the tolerance
        assert front(state) == (best(state),)


def test_the_failing_region_is_avoided():
    def fails(params):
        return params["x0"] > 0.6  # the lowest outputs lie beyond

    state = search(FLAT, 7, output=quadratic, fails=fails)
    failed = [o.failed for o in state.observations]
    assert sum(failed[40:]) <= 6
    # The lowest that can be had is 0.16, on the border.
    assert best(state).output < 0.16 + 0.15


def test_a_start_that_only_fails_goes_on_further_out():
    def fails(params):
        return params["x0"] < 0.9  # three radii from the centre

    state = search(FLAT, 6, output=quadratic, fails=fails)
    reach = [np.linalg.norm(FLAT.to_basic(s.params)) for s in state.suggestions]
    assert np.mean(reach[8:16]) > np.mean(reach[:8])
    assert best(state) is not None
    assert best(state).params["x0"] >= 0.9


def test_nothing_but_failures_is_no_crash():
    state = search(SPACE, 3, fails=lambda params: True)
    assert best(state) is None
    assert front(state) == ()
    assert len({tuple(s.params.values()) for s in state.suggestions}) == 24


@pytest.mark.slow
def test_the_front_is_searched_along_costs():
    """Output falls as the cost rises; both ends of the front must be improved."""

    def output(params):
        return 10 / params["count"] + bowl(params)

    state = search(SPACE, 10, output=output, cost=lambda params: params["count"])
    members = front(state)
    costs = np.array([one.cost for one in members])
    assert costs[-1] >= 16  # from 8 at the centre
    assert costs[0] < 8
    assert len(members) >= 5
    excess = [bowl(one.params) for one in members]
    assert np.median(excess) < 0.1 * bowl(SPACE.centre)


def test_the_cost_limit_holds():
    config = CarbsConfig(max_cost=15.0)
    state = search(
        SPACE, 6, config=config, output=lambda p: -p["count"] + bowl(p), cost=lambda p: p["count"]
    )
    late = [s.params["count"] for s in state.suggestions[24:]]
    assert max(late) <= 18  # predicted, not known
    assert best(state).cost >= 12


def test_every_fifth_suggestion_measures_the_front_again():
    noise = np.random.default_rng(0)
    state = search(FLAT, 5, output=lambda params: quadratic(params) + 0.1 * noise.normal())
    again = [s for s in state.suggestions if s.origin == "remeasure"]
    assert [s.id for s in again] == list(range(9, 40, 5))
    for s in again:
        assert s.params in [earlier.params for earlier in state.suggestions[: s.id]]
    assert max(one.runs for one in carbs.front(state)) <= state.config.most_runs
    quiet = search(FLAT, 3, output=quadratic, config=CarbsConfig(remeasure_every=0))
    assert "remeasure" not in {s.origin for s in quiet.suggestions}


def test_what_has_no_noise_is_measured_twice_at_most():
    state = search(FLAT, 6, output=lambda params: 1.0 + params["x0"] ** 2)
    outputs = {}
    for s in state.suggestions:
        outputs.setdefault(tuple(s.params.values()), []).append(s.id // 8)
    # Two of a round may be under way together; never one more after they came back.
    for rounds in outputs.values():
        assert len(set(rounds)) <= 2


def test_best_is_the_lowest_mean():
    state, s = ask(start(CarbsConfig(), FLAT, 0), 5)
    twice = dataclasses.replace(s[4], params=s[0].params, origin="remeasure")
    state = dataclasses.replace(state, suggestions=(*s[:4], twice))
    state = tell(state, [Observation(0, 1.0, 2.0), Observation(4, 3.0, 4.0)])
    state = tell(state, [Observation(1, 2.5, 1.0), Observation(2, None, 1.0, failed=True)])
    found = best(state)
    assert found.params == s[0].params
    assert (found.output, found.cost, found.runs, found.failures, found.ids) == (2, 3, 2, 0, (0, 4))
    assert [one.ids for one in front(state)] == [(1,), (0, 4)]


def test_the_expected_best_is_not_fooled_by_luck():
    """The luckiest of many noisy runs near a poor setting, against a cluster of good ones."""
    space = Space((Dimension("x", "linear", 0.0, -2.0, 2.0),))
    rng = np.random.default_rng(0)
    state, s = ask(start(CarbsConfig(), space, 0), 40)
    places = np.concatenate([rng.normal(-1, 0.1, 20), rng.normal(1, 0.1, 20)])
    s = tuple(
        dataclasses.replace(one, params={"x": float(x)}) for one, x in zip(s, places, strict=True)
    )
    outputs = np.where(places < 0, 3.0, 2.0) + 0.3 * rng.normal(size=40)
    outputs[7] = 0.5
    state = dataclasses.replace(state, suggestions=s)
    state = tell(state, [Observation(i, float(y), 1.0) for i, y in enumerate(outputs)])
    assert best(state).ids == (7,)
    assert expected_best(state).params["x"] > 0


def test_without_noise_the_expected_best_is_the_best():
    state = search(FLAT, 4, output=quadratic)
    low = best(state).output
    assert low <= quadratic(expected_best(state).params) <= low + 0.02 * quadratic(FLAT.centre)
    assert expected_best(start(CarbsConfig(), FLAT, 0)) is None


def test_a_setting_that_mostly_fails_is_not_the_best():
    state, s = ask(start(CarbsConfig(), FLAT, 0), 4)
    again = tuple(dataclasses.replace(one, params=s[0].params) for one in s[:3])
    state = dataclasses.replace(state, suggestions=(*again, s[3]))
    state = tell(state, [Observation(0, -9.0, 1.0), Observation(3, 5.0, 1.0)])
    state = tell(state, [Observation(i, None, 1.0, failed=True) for i in (1, 2)])
    assert best(state).ids == expected_best(state).ids == (3,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"output": float("nan")},
            "observation 0: output is nan; it must be finite; tell a failed run",
        ),
        ({"output": float("inf")}, "output is inf; it must be finite"),
        ({"output": "low"}, "output is 'low'; it must be a number"),
        ({"output": None}, "observation 0: no output; tell a failed run by failed=True"),
        ({"cost": float("nan")}, "cost is nan; it must be finite"),
        ({"cost": float("-inf")}, "cost is -inf; it must be finite"),
        ({"cost": 0.0}, "cost is 0.0; it must be above 0"),
        ({"cost": -1.0, "failed": True, "output": None}, "cost is -1.0; it must be above 0"),
        ({"failed": True}, "a failed run has no output, this has 1.0"),
        ({"failed": 1}, "failed is 1; it is true or false"),
        ({"id": "0"}, "id is '0'; it must be a suggestion's"),
    ],
)
def test_a_bad_observation_is_one_clear_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Observation(**({"id": 0, "output": 1.0, "cost": 1.0} | fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([8], "there is no suggestion 8: 8 were made"),
        ([-1], "there is no suggestion -1"),
        ([3, 3], "suggestion 3 is told twice"),
        ([0], "suggestion 0 is told twice"),
    ],
)
def test_what_was_not_asked_cannot_be_told(ids, message):
    state = tell(ask(start(CarbsConfig(), FLAT, 0), 8)[0], [Observation(0, 1.0, 1.0)])
    with pytest.raises(ValueError, match=message):
        tell(state, [Observation(i, 1.0, 1.0) for i in ids])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radius": 0.0}, "radius is 0.0; it must be in"),
        ({"radius": float("nan")}, "radius is nan"),
        ({"first_samples": 0}, "first_samples is 0; it must be a whole number from 1"),
        ({"candidates_per_dimension": 1.5}, "candidates_per_dimension is 1.5"),
        ({"remeasure_every": -1}, "remeasure_every is -1; it must be a whole number from 0"),
        ({"most_runs": 0}, "most_runs is 0"),
        ({"max_cost": 0.0}, "max_cost is 0.0; it must be in"),
        ({"cost_tolerance": -0.1}, "cost_tolerance is -0.1"),
        ({"cheapest_left": 1.0}, "cheapest_left is 1.0"),
        ({"cost_reach": 0.5}, "cost_reach is 0.5"),
    ],
)
def test_a_bad_config_is_one_clear_line(fields, message):
    with pytest.raises(ValueError, match=message):
        CarbsConfig(**fields)


def test_bad_seeds_and_counts_are_refused():
    with pytest.raises(ValueError, match="seed is -1; it must be a whole number from 0"):
        start(CarbsConfig(), FLAT, -1)
    with pytest.raises(ValueError, match="count is 0; it must be a whole number from 1"):
        ask(start(CarbsConfig(), FLAT, 0), 0)
