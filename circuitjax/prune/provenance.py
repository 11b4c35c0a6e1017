"""The search that found a circuit, from its record; settings of the first version are translated."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.prune.config import DataConfig, Hyper
from circuitjax.prune.defaults import Search, default_search

__all__ = ["data_of", "hyper_of", "search_of"]

_RECORDED = ("search", "prune", "config", "settings")

# Names of the first version's settings that have changed.
_RENAMED = {
    "train_pairs": "train",
    "validation_pairs": "validation",
    "test_pairs": "test",
    "train_examples": "train",
    "validation_examples": "validation",
    "test_examples": "test",
    "node_gates": "owners",
}
_SAME = ("steps", "batch_size", "chunk", "loss", "tie_qk", "grid", "random_controls", "minimise")


def search_of(circuit: Circuit) -> Search:
    """The search a circuit was found by.

    Raises:
      ValueError: a record without it.
    """
    facts = circuit.provenance
    if isinstance(facts.get("search"), Mapping):
        return Search.from_dict(facts["search"])
    settings = facts.get("prune", facts.get("config", facts.get("settings")))
    if not isinstance(settings, Mapping):
        raise ValueError(
            "the circuit's record does not say by what search it was found: give it as `search`"
        )
    return _of_first_version(circuit, settings)


def _of_first_version(circuit: Circuit, settings: Mapping[str, Any]) -> Search:
    given = {_RENAMED.get(name, name): value for name, value in settings.items()}
    kept = {name: given[name] for name in (*_SAME, *set(_RENAMED.values())) if name in given}
    calibrate = given.get("calibrate")
    if isinstance(calibrate, str):
        kept["calibrate"] = calibrate
    elif calibrate is False:
        kept["calibrate"] = "off"
    if "target" in given and "target_value" in given:
        target = str(given["target"])
        kept["threshold" if target == "match_soft" else f"target_{target}"] = (
            target if target == "match_soft" else given["target_value"]
        )
    elif "target_loss" in given:
        kept["target_loss"] = given["target_loss"]
    return default_search(circuit.grain, ablation=circuit.ablation, **kept)


def data_of(circuit: Circuit) -> DataConfig:
    """Sizes of the sets that a circuit was found on; the defaults where its record names none."""
    known = any(isinstance(circuit.provenance.get(name), Mapping) for name in _RECORDED)
    return search_of(circuit).data if known else DataConfig()


def hyper_of(circuit: Circuit) -> Hyper | None:
    """The hyperparameters of the run that gave a circuit, from its record; None: unknown.

    Raises:
      ValueError: a value outside its limits.
    """
    facts = circuit.provenance
    jobs = facts.get("jobs")
    found = facts.get("chosen") or facts.get("hyper") or (jobs[0] if jobs else None)
    names = [field.name for field in dataclasses.fields(Hyper)]
    if not isinstance(found, Mapping) or "lr" not in found:
        return None
    hyper = Hyper(**{name: float(found[name]) for name in names if name in found})
    hyper.check()
    return hyper
