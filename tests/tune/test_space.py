"""Basic units: there and back, what a unit means, and what is refused."""

import numpy as np
import pytest

from circuitjax.tune.space import Dimension, Space

LINEAR = Dimension("width", "linear", 3.0, -1.0, 9.0, scale=2.5)
LOG = Dimension("rate", "log", 1e-3, 1e-5, 1e-1, scale=0.5)
LOGIT = Dimension("fraction", "logit", 0.05, 0.001, 0.9)
COUNT = Dimension("layers", "linear", 4, 1, 12, scale=3, integer=True)
STEPS = Dimension("steps", "log", 200, 50, 10000, integer=True, rounding=50)
ALL = (LINEAR, LOG, LOGIT, COUNT, STEPS)


@pytest.mark.parametrize("dimension", ALL, ids=lambda d: d.name)
def test_values_there_and_back(dimension):
    for share in np.linspace(0, 1, 23):
        value = dimension.minimum + share * (dimension.maximum - dimension.minimum)
        if dimension.integer:
            value = round(value / dimension.rounding) * dimension.rounding
        back = dimension.from_basic(dimension.to_basic(np.asarray(value)))
        np.testing.assert_allclose(back, value, rtol=1e-12)
    assert dimension.to_basic(np.asarray(dimension.centre)) == 0


@pytest.mark.parametrize("dimension", [LINEAR, LOG, LOGIT], ids=lambda d: d.name)
def test_basic_units_there_and_back(dimension):
    low, high = (
        float(dimension.to_basic(np.asarray(v))) for v in (dimension.minimum, dimension.maximum)
    )
    units = np.linspace(low, high, 31)
    np.testing.assert_allclose(dimension.to_basic(dimension.from_basic(units)), units, atol=1e-12)


def test_what_a_unit_is():
    assert LINEAR.from_basic(np.asarray(1.0)) == pytest.approx(5.5)
    assert LOG.from_basic(np.asarray(2.0)) == pytest.approx(1e-2)
    odds = LOGIT.from_basic(np.asarray(1.0)) / (1 - LOGIT.from_basic(np.asarray(1.0)))
    assert odds == pytest.approx(10 * 0.05 / 0.95)


@pytest.mark.parametrize("dimension", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("far", [-1e3, 1e3])
def test_nothing_leaves_the_bounds(dimension, far):
    end = dimension.minimum if far < 0 else dimension.maximum
    assert dimension.from_basic(np.asarray(far)) == end


def test_integers_are_rounded():
    space = Space((COUNT, STEPS))
    params = space.from_basic(np.array([0.4, 0.1]))
    assert params == {"layers": 5, "steps": 250}
    assert all(type(value) is int for value in params.values())


def test_snapped_points_are_those_of_their_parameters(rng):
    space = Space(ALL)
    points = 4 * rng.normal(size=(50, 5))
    for point, snapped in zip(points, space.snap(points), strict=True):
        np.testing.assert_allclose(space.to_basic(space.from_basic(point)), snapped, atol=1e-9)


def test_a_space_there_and_back(rng):
    space = Space(ALL)
    assert Space.from_dict(space.to_dict()) == space
    np.testing.assert_array_equal(space.to_basic(space.centre), np.zeros(5))
    low, high = space.bounds()
    for point in rng.uniform(low, high, (20, 5)):
        params = space.from_basic(point)
        assert space.from_basic(space.to_basic(params)) == pytest.approx(params, rel=1e-12)


def dimension(**changes):
    fields = {"name": "x", "kind": "linear", "centre": 0.5, "minimum": 0.1, "maximum": 0.9}
    return Dimension(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "non-empty string"),
        ({"kind": "cubic"}, "x: kind is 'cubic'; choose one of linear, log, logit"),
        ({"minimum": 0.9}, "x: minimum is 0.9 and maximum 0.9; the minimum must be the lower"),
        ({"minimum": 2.0}, "the minimum must be the lower one"),
        ({"centre": 1.0}, r"x: centre is 1.0; it must be within the bounds \[0.1, 0.9\]"),
        ({"centre": float("nan")}, "x: centre is nan; it must be finite"),
        ({"maximum": float("inf")}, "x: maximum is inf; it must be finite"),
        ({"centre": "0.5"}, "x: centre is '0.5'; it must be a number"),
        ({"scale": 0.0}, "x: scale is 0.0; it must be above 0"),
        ({"kind": "log", "minimum": 0.0}, "x: minimum is 0.0; a log dimension's must be above 0"),
        (
            {"kind": "logit", "maximum": 1.0},
            "x: maximum is 1.0; a logit dimension's must be below 1",
        ),
        ({"kind": "logit", "integer": True}, "no whole number between 0 and 1"),
        ({"integer": True}, "x: centre is 0.5; it must be a multiple of 1"),
        ({"rounding": 0}, "rounding is 0; it must be a whole number above 0"),
        ({"rounding": 5}, "only an integer dimension has a rounding"),
    ],
)
def test_a_bad_dimension_is_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        dimension(**changes)
    assert "\n" not in str(caught.value)


def test_a_bad_space_is_one_clear_line():
    with pytest.raises(ValueError, match="two dimensions named 'x': rename one"):
        Space((dimension(), dimension(centre=0.2)))
    with pytest.raises(ValueError, match="no dimension"):
        Space(())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": 0.5, "y": 1.0}, "'y' is no dimension of the space: x"),
        ({}, "the value of 'x' is missing"),
        ({"x": 0.95}, r"x is 0.95; it must be in \[0.1, 0.9\]"),
        ({"x": float("nan")}, "x is nan; it must be in"),
    ],
)
def test_a_point_outside_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        Space((dimension(),)).to_basic(params)
