"""Where a study starts: the published centres, or the defaults; both are settings that can be run."""

import pytest

from circuitjax.prune.capabilities import refuse_unused
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_hyper, default_search
from circuitjax.tune.pruning_space import CENTRES, pruning_space

PUBLISHED = {
    "init_noise_scale": 1e-2,
    "init_noise_bias": 1e-1,
    "wd": 1e-3,
    "lr": 3e-3,
    "inv_beta2": 5e-2,
    "lr_warmup_frac": 5e-2,
    "heaviside_temp": 1.0,
}


def test_the_published_centre_is_that_of_the_paper():
    """Gao et al. 2025, Table 2; its 1e-4 is for 8 layers of 2048, 180,224 nodes."""
    centre = pruning_space(180_224).centre
    assert centre.pop("k_coef") == pytest.approx(1e-4, rel=2e-3)
    assert centre == pytest.approx(PUBLISHED)


@pytest.mark.parametrize("centre", CENTRES)
def test_every_centre_can_be_run(centre):
    space = pruning_space(8448, centre)
    Hyper(**space.centre).check()
    assert set(space.names) == {"k_coef", *PUBLISHED}


def test_the_default_centre_is_near_the_defaults():
    centre, default = pruning_space(8448, "default").centre, default_hyper(Search(), 8448).to_dict()
    for name in ("init_noise_scale", "init_noise_bias", "wd", "lr", "inv_beta2", "heaviside_temp"):
        assert centre[name] == pytest.approx(default[name])
    with pytest.raises(ValueError, match="centre is 'here'; choose one of published, default"):
        pruning_space(8448, "here")


@pytest.mark.parametrize("gate", ["heaviside", "hard_concrete"])
@pytest.mark.parametrize("control", ["count", "lagrangian", "hold"])
@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
def test_any_search_has_what_it_reads_and_starts_where_it_can_run(grain, gate, control):
    search = default_search(grain, gate=gate, control=control, minimise="both")
    space = pruning_space(5000, "default", search)
    Hyper(**space.centre).check()
    refuse_unused(search.choices, space.names)
    unread = {name for name in Hyper().to_dict() if name not in space.names} - {"held"}
    for name in unread:
        with pytest.raises(ValueError, match="has no meaning with"):
            refuse_unused(search.choices, [name])
