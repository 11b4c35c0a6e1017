"""The settings of an audit, and those of the search that a circuit's record names."""

import pytest

from circuitjax.audit.config import AuditConfig
from circuitjax.prune.defaults import default_hyper, default_search
from circuitjax.prune.provenance import hyper_of, search_of
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, SEARCH


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 4}, "seeds is 4; it must be at least 5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"pairs": 0}, "pairs is 0"),
        ({"fractions": (0.5, 1.0)}, "each must be in"),
        ({"seed": -1}, "seed is -1"),
        ({"random_sets": 0}, "random_sets is 0"),
        ({"confidence": 1.0}, r"confidence is 1.0; it must be in \(0, 1\)"),
        ({"confidence": 0.0}, r"confidence is 0.0; it must be in \(0, 1\)"),
        ({"exhaustive": -1}, "exhaustive is -1"),
    ],
)
def test_a_bad_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AuditConfig(**changes)


def test_a_circuits_record_says_how_it_was_found():
    circuit = circuit_of(PLANTED)
    assert search_of(circuit) == SEARCH
    assert hyper_of(circuit) is None
    hyper = default_hyper(SEARCH, 288, lr=0.02)
    job = {"seed": 3, **hyper.to_dict()}
    for facts in ({"chosen": job}, {"hyper": hyper.to_dict()}, {"jobs": [job, {}]}):
        found = hyper_of(circuit_of(PLANTED, provenance=facts))
        assert found.to_dict() == pytest.approx(hyper.to_dict())
    with pytest.raises(ValueError, match="does not say by what search"):
        search_of(circuit_of(PLANTED, provenance={}))


def test_settings_of_the_first_version_are_those_of_now():
    first = {"target_loss": 0.2, "steps": 60, "train_pairs": 64, "calibrate": "off", "chunk": 20}
    found = search_of(circuit_of(PLANTED, provenance={"prune": first}))
    want = default_search(
        target_loss=0.2, steps=60, train=64, calibrate="off", chunk=20, ablation="zero"
    )
    assert found == want
    assert search_of(circuit_of(PLANTED, provenance={"config": {}})) == default_search(
        ablation="zero"
    )
