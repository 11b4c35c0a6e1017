"""Defaults: the method of each grain, the settings that suit each choice, and the two published presets.

A method is a `Search`: five choices, sizes of the data, length of the training, and what the cut
aims at. Several jobs are tried side by side by default, since one setting fails some task.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from circuitjax.core.files import cut
from circuitjax.gated.edges import AT_ONCE, at_once
from circuitjax.model.config import TransformerConfig
from circuitjax.prune.config import Choices, DataConfig, Hyper, SelectionConfig, TrainConfig
from circuitjax.prune.train import Job

__all__ = ["PRESETS", "Search", "default_hyper", "default_jobs", "default_search"]

# Multiples of the centre of k_coef that are tried side by side, by grain; sparsities likewise.
K_COEF_MULTIPLES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "nodes": (0.2, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0, 3.0),
        "weights": (0.5, 1.5),
        "edges": (1.0,),
    }
)
SPARSITIES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"nodes": (0.9, 0.97, 0.99), "weights": (0.9,), "edges": (0.95, 0.99)}
)

# Of so many residual edges a step takes seconds: one sparsity is tried.
_MANY, _SPARSITY_OF_MANY = 20_000, 0.97
# Whoever gives one of these asks for training.
_OF_TRAINING = (
    *("steps", "batch_size", "gate", "control", "minimise", "owners"),
    *("coarse", "warm_start", "train_under", "eliminate"),
)
_USUAL_EDGES = 2746  # of tiny-python, which the start of the coefficient suits

#: The published methods and one of ours, as answers to the five questions and what else they pin.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gao2025": {
            "grain": "nodes",
            "gate": "heaviside",
            "ablation": "mean",
            "minimise": "task",
            "control": "count",
            "calibrate": "after",
            "batch_size": 64,
        },
        # Ours: what it finds holds under resampling and within supersets, at the price of more edges.
        "faithful": {
            "grain": "nodes",
            "gate": "heaviside",
            "minimise": "task",
            "control": "hold",
            "train_under": "mean:2,resample:1,supersets:1",
            "hold_under": "mean,resample,supersets",
        },
        "bhaskar2024": {
            "grain": "edges",
            "gate": "hard_concrete",
            "ablation": "interchange",
            "minimise": "kl",
            "control": "lagrangian",
            "threshold": "match_soft",
            "steps": 3000,
            "target_warmup_frac": 2500 / 3000,
            "init_noise_bias": 10.0,
            "lr": 0.8,
            "target_sparsity": 0.98,
        },
    }
)


@dataclasses.dataclass(frozen=True)
class Search:
    """All that is static about a search.

    Attributes:
      choices: the five answers.
      data: sizes of the sets.
      train: length of the training.
      selection: what the cut aims at.

    Examples:
      >>> search = cj.Search(cj.Choices(grain="weights"), train=cj.TrainConfig(steps=200))
      >>> cj.Search.from_dict(search.to_dict()) == search
      True
    """

    choices: Choices = dataclasses.field(default_factory=Choices)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    selection: SelectionConfig = dataclasses.field(default_factory=SelectionConfig)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` is its inverse."""
        return {**dataclasses.asdict(self), "choices": self.choices.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Search":
        """From `to_dict`; an unknown or missing part is a ValueError."""
        kinds = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        if set(fields) != set(kinds):
            raise ValueError(f"a search has the parts {sorted(kinds)}, not {sorted(fields)}")
        try:
            return cls(**{name: kinds[name](**fields[name]) for name in kinds})  # type: ignore
        except TypeError as error:
            raise ValueError(f"a search's settings are not ours: {error}") from None


def default_search(
    grain: str = "nodes",
    *,
    paired: bool = True,
    config: TransformerConfig | None = None,
    **given: Any,
) -> Search:
    """The method of a grain, with some settings given.

    Args:
      grain: where gates sit.
      paired: whether the task is a binary one, whose sizes are in pairs.
      config: of the network, where it is known: of residual edges of large ones, whose every example
        costs a second and more, sets and batches are smaller.
      **given: fields of the four parts by name, as far as they are not left to the defaults;
        `target_loss`, `target_kl`, `target_edges`, `target_nodes` and `threshold="match_soft"` say
        what the cut aims at.

    Raises:
      ValueError: an unknown setting, or two targets.

    Examples:
      >>> cj.default_search("edges", target_kl=0.1).choices.ablation
      'interchange'
    """
    given = {name: value for name, value in given.items() if value is not None}
    given = _of_large(grain, config, given) | given
    for under in ("train_under", "hold_under"):
        if given.get(under) and "ablation" in given:
            raise ValueError(
                f"ablation={given['ablation']} and {under}={given[under]} are both given: the first is "
                "short for training and holding under it alone; leave one of them out"
            )
    target, given = _target(given)
    gate = given.get("gate", "hard_concrete" if grain == "edges" else "heaviside")
    control = {"nodes": "hold", "weights": "hold", "edges": "count"}[grain]
    if gate == "hard_concrete" and grain == "edges":
        control = "lagrangian"
    if control == "hold" and target.get("target", "loss") not in ("loss", "kl"):
        control = "count"
    control = given.get("control", control)
    learned = given.get("ranking", "learned") == "learned"
    edges = grain == "edges"
    single = (given.get("units", "channel"), given.get("coarse", "none")) == ("channel", "none")
    share = 2 if paired else 1
    own: dict[str, Any] = {
        "grain": grain,
        "gate": gate,
        "ablation": "interchange" if edges else "mean",
        "minimise": "kl" if edges else "both" if "kl" in target else "task",
        "control": control,
        "owners": edges and gate == "hard_concrete" and single,
        "steps": 100 if grain == "nodes" and control == "count" else 300,
        "batch_size": 16 if grain == "nodes" else 32,
    }
    if target.get("target", "loss") in ("loss", "kl") and (grain, control) != ("nodes", "count"):
        # Every gate of several conditions' circuits is dear to try: only elimination then.
        own |= {"eliminate": True, "certify": learned and not given.get("hold_under")}
    if edges:
        dear = 1 if config is None else AT_ONCE // at_once(config)
        share *= dear
        own |= {"train": 4096 // share, "validation": 512 // share, "test": 512 // share}
        # Ctrl-C waits for a chunk.
        own |= {"batch_size": max(32 // share, 1), "chunk": max(25 // dear, 1)}
    if not paired:
        own["calibrate"] = "off"
    values = own | target | given
    parts: dict[str, Any] = {}
    for name, kind in (
        ("choices", Choices),
        ("data", DataConfig),
        ("train", TrainConfig),
        ("selection", SelectionConfig),
    ):
        known = {field.name for field in dataclasses.fields(kind)}
        parts[name] = kind(**{n: values.pop(n) for n in list(values) if n in known})
    if values:
        raise ValueError(f"there is no setting {cut(sorted(values)[0])}")
    return Search(**parts)


def _of_large(
    grain: str, config: TransformerConfig | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What else holds for residual edges of a network whose examples cost a second and more.

    A KL is met by elimination from the whole model, without training: at a loose one it found far fewer
    edges in less time. Where training is asked for, or a loss is the target, it starts from a ranking's
    cut and holds the target: gates that open and close by chance leave such a network nothing to learn
    from in a few hundred steps. What is left open is eliminated by the curvature of the KL, as first
    slopes hold vital edges to be harmful; any other search's scores are cut as they are.
    """
    if config is None or grain != "edges" or at_once(config) == AT_ONCE:
        return {}
    found: dict[str, Any] = {"eliminate": False, "certify": False}
    if "target_kl" in given and not {"ranking", "hold_under", *_OF_TRAINING} & set(given):
        return found | {"ranking": "eliminated"}
    learned = given.get("ranking", "learned") == "learned"
    sizes = {"target_edges", "target_nodes", "threshold"}  # there is nothing to hold then
    if learned and not (sizes | {"gate", "control"}) & set(given):
        found |= {"gate": "heaviside", "control": "hold", "warm_start": "fisher", "steps": 150}
    begun = given.get("warm_start", found.get("warm_start"))
    return found | {"eliminate": begun == "fisher" and "target_kl" in given}


def _target(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the cut aims at, and the other settings."""
    names = {f"target_{kind}": kind for kind in ("loss", "kl", "edges", "nodes")}
    asked = [name for name in names if name in given]
    rest = {n: v for n, v in given.items() if n not in names and n != "threshold"}
    if asked == ["target_loss", "target_kl"]:
        if not given.get("hold_under"):
            raise ValueError(
                "target_loss and target_kl are both given: choose one, or say hold_under, with which "
                "both are demanded"
            )
        return {"target": "loss", "value": given["target_loss"], "kl": given["target_kl"]}, rest
    if given.get("threshold") == "match_soft":
        asked.append("threshold")
    if len(asked) > 1:
        raise ValueError(f"{asked[0]} and {asked[1]} are both given: choose one")
    if not asked:
        return {}, rest
    if asked[0] == "threshold":
        return {"target": "match_soft"}, rest
    return {"target": names[asked[0]], "value": given[asked[0]]}, rest


def default_hyper(search: Search, num_gates: int, **changes: float) -> Hyper:
    """Hyperparameters that suit grain, gate and control.

    The useful k_coef of nodes goes as one over their number: 18 / N is the published 1e-4 times its
    N. Of weights it is 0.04 E^-0.4 where it is fixed: a fixed number of nats over E would close
    every gate of a small start at once. Where it adapts (`hold`) it starts small. Scores of
    hard-concrete gates are log odds: they start higher and move faster; the published start of 10
    has hardly any gradient and relies on weight decay to come down. Heaviside gates under a KL have
    no gradient while all are open, so the start spreads.

    Raises:
      ValueError: a value outside its limits.

    Examples:
      >>> search = cj.default_search("nodes", control="count")
      >>> float(cj.default_hyper(search, num_gates=1800).k_coef)
      0.01
    """
    choices, edges = search.choices, search.choices.grain == "edges"
    if choices.gate == "hard_concrete":
        values = {"lr": 0.3 if edges else 0.2, "init_noise_bias": 2.0 if edges else 1.0}
        values |= {"wd": 0.01, "inv_beta2": 0.01} if edges else {}
    else:
        spread = choices.grain != "nodes" or choices.control != "count"
        values = {"init_noise_bias": 0.3, "init_noise_scale": 0.15} if spread else {}
        values |= {"lr": 0.02} if edges else {}
    count = max(num_gates, 1)
    centre = {"nodes": 18.0 / count, "weights": 0.04 * count**-0.4, "edges": 0.01}[choices.grain]
    if choices.control == "hold" and choices.grain == "nodes":
        values["aim"] = 0.7
    if choices.control == "hold":
        centre = {"nodes": 0.3 / count, "weights": 3e-3, "edges": 1e-3}[choices.grain]
        if choices.grain == "edges":
            centre *= min(1.0, _USUAL_EDGES / count)
            # Training closes what elimination would need room for, where that is none or dear.
            slow = not search.selection.eliminate or choices.warm_start == "fisher"
            values |= {"aim": 0.8} if slow else {}
    if choices.control == "hold" and search.selection.is_loss:
        values["held"] = search.selection.value
    if search.selection.kl is not None:  # each weighs by its own target
        values["kl_weight"] = search.selection.kl_share
    hyper = Hyper(**{"k_coef": centre, **values, **changes})
    hyper.check()
    return hyper


def default_jobs(
    search: Search, num_gates: int, seeds: Sequence[int], *, started: bool = False, **changes: float
) -> list[Job]:
    """Seeds times settings: several k_coef or target sparsities, or just the one in `changes`.

    Args:
      search: the method.
      num_gates: gates that can matter.
      seeds: of gates and batches.
      started: whether the search starts from a circuit, which then loses half of its weights.
      **changes: hyperparameters that are given.

    Raises:
      ValueError: a hyperparameter out of range.

    Examples:
      >>> search = cj.default_search("nodes", control="count")
      >>> len(cj.default_jobs(search, num_gates=1800, seeds=[0, 1]))
      16
    """
    grain, control = search.choices.grain, search.choices.control
    varied: list[dict[str, float]] = [{}]
    if control == "count" and "k_coef" not in changes:
        centre = float(default_hyper(search, num_gates).k_coef)
        multiples = K_COEF_MULTIPLES[grain]
        varied = [{"k_coef": centre * multiple} for multiple in multiples]
    if control == "lagrangian" and "target_sparsity" not in changes:
        large = grain == "edges" and num_gates > _MANY
        sparsities = (0.5,) if started else (_SPARSITY_OF_MANY,) if large else SPARSITIES[grain]
        varied = [{"target_sparsity": s} for s in sparsities]
    settings = [default_hyper(search, num_gates, **(changes | more)) for more in varied]
    return [Job(seed, hyper) for seed in seeds for hyper in settings]
