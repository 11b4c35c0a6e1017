"""Settings of a search, one small dataclass for each owner; what a tuner varies is one traced `Hyper`.

Choices      one answer to each of the five questions, and how gates are ranked
DataConfig   sizes of the three disjoint sets
Objective    (`objective.py`) what shapes the training program
Selection    what the cut aims at, and how it calibrates
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.files import cut
from circuitjax.core.statistics import require_share

__all__ = [
    "LIMITS",
    "SYNONYMS",
    "UNTRAINED",
    "AttributeTo",
    "Choices",
    "DataConfig",
    "Hyper",
    "Ranking",
    "SelectionConfig",
    "Sign",
    "TrainConfig",
    "check_limits",
    "stack_hypers",
]

GrainName = Literal["nodes", "weights", "edges"]
Minimise = Literal["task", "kl", "both"]
Ranking = Literal[
    "learned",
    "attribution",
    "integrated",
    "eap_ig_inputs",
    "eap_ig_activations",
    "gim",
    "fisher",
    "eliminated",
    "variance",
    "random",
]
Sign = Literal["absolute", "signed", "positive"]
AttributeTo = Literal["loss", "odds"]
#: The literature's names of rankings that have another one here.
SYNONYMS: Mapping[str, Any] = MappingProxyType({"eap": "attribution"})
#: Rankings without training beside those by gradients (`attribution.ATTRIBUTIONS`).
UNTRAINED: tuple[str, ...] = ("fisher", "eliminated", "variance", "random")
Target = Literal["loss", "kl", "edges", "nodes", "match_soft"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What makes a method of pruning; see `capabilities.py` for what goes with what.

    Attributes:
      grain: where gates sit.
      gate: how a gate opens.
      ablation: what a closed part holds.
      minimise: the task loss, the KL to the whole model, or the sum of both (`Hyper.kl_weight`).
      control: what keeps gates closed.
      ranking: by what gates are ranked: learned scores, or a score without training.
      sign: of rankings by gradients: `absolute`, `signed`, or `positive` ones alone.
      attribute_to: what these gradients are of: the task `loss`, or the `odds` of the right answer.
      warm_start: a ranking without training that learned gates start from, or `none`.
      owners: gates on the owners of gates besides (writers of edges, ends of weights).
      coarse: gates on `head` or `block` units besides, which multiply those within, or `none`.
      tie_qk: one gate for a q channel and the k channel it is multiplied with.
      units: what a gate on nodes or edges opens: a `channel`, a `head` (or MLP), a `block`.
      loss: of the task: between the completions, or over the whole vocabulary.
      train_under: conditions of training with their weights, as `conditions.parse` reads them; "" for
        the ablation alone.
      hold_under: conditions that the cut demands the target under; "" for the ablation alone.
    """

    grain: GrainName = "nodes"
    gate: str = "heaviside"
    ablation: str = "mean"
    minimise: Minimise = "task"
    control: str = "count"
    ranking: Ranking = "learned"
    sign: Sign = "absolute"
    attribute_to: AttributeTo = "loss"
    warm_start: str = "none"
    owners: bool = False
    tie_qk: bool = False
    units: Literal["channel", "head", "block"] = "channel"
    coarse: Literal["none", "head", "block"] = "none"
    loss: Literal["binary", "vocabulary"] = "binary"
    train_under: str = ""
    hold_under: str = ""

    def __post_init__(self) -> None:
        for name in ("ranking", "warm_start"):
            value = getattr(self, name)
            object.__setattr__(self, name, SYNONYMS.get(value, value))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; conditions and coarse gates that were not asked for are left out."""
        found = dataclasses.asdict(self)
        return {n: v for n, v in found.items() if v != "" and (n, v) != ("coarse", "none")}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Sizes of the sets, in pairs of a binary task and in examples of a contrast task.

    Attributes:
      train, validation, test: disjoint as texts. Gates learn on the first; the cut and the calibration
        are chosen on the second; every reported figure is of the third.
      seed: of all three draws.
    """

    train: int = 4096
    validation: int = 1024
    test: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _whole(self, "train", "validation", "test")
        if self.seed < 0:
            raise ValueError(f"data seed is {self.seed}; it must be at least 0")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long gates are trained.

    Attributes:
      steps: in all.
      batch_size: pairs, or examples of a contrast task, per step.
      chunk: steps per call of the compiled program, and between checkpoints.
    """

    steps: int = 100
    batch_size: int = 16
    chunk: int = 25

    def __post_init__(self) -> None:
        _whole(self, "steps", "batch_size", "chunk")


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """What a ranking is cut to.

    Attributes:
      target: `loss` and `kl`: at most `value` nats; `edges` and `nodes`: at most `value` of them;
        `match_soft`: as many gates as the soft ones are expected to leave open.
      value: see `target`.
      calibrate: `inside` takes the smallest k whose calibrated loss meets the target, `after`
        calibrates the circuit chosen without, `off` never does.
      eliminate: whether the gates that training left open are ranked anew by backward elimination
        before the cut.
      certify: whether every gate of the chosen circuit is then tried by itself; see `certify.py`.
      order: how a ranking of residual edges is walked: `top`, the best first, or `greedy`, from the
        logits backwards, so that what is taken is connected.
      grid: candidate k per round of the bisection.
      random_controls: matched random sets of the necessity figure.
      kl: nats that the KL to the whole model must be within beside a target loss; None: any.
      confidence: with which the target is to be met, in (0, 1): the upper bound of the mean over the
        items must be within it; None: the mean.
    """

    target: Target = "loss"
    value: float = 0.15
    calibrate: Literal["inside", "after", "off"] = "inside"
    eliminate: bool = False
    certify: bool = False
    order: Literal["top", "greedy"] = "top"
    grid: int = 12
    random_controls: int = 20
    kl: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.target in ("loss", "kl") and not 0 < self.value < float("inf"):
            raise ValueError(f"target_{self.target} is {self.value}; it must be in (0, inf) nats")
        if self.target in ("edges", "nodes") and (self.value < 1 or self.value % 1):
            raise ValueError(
                f"target_{self.target} is {self.value:g}; it must be a whole number of at least 1"
            )
        if self.kl is not None and not (self.target == "loss" and 0 < self.kl < float("inf")):
            raise ValueError(
                f"target_kl beside a target loss is {self.kl}; it must be in (0, inf) nats"
            )
        if self.confidence is not None:
            require_share("confidence", self.confidence)
            if not self.is_loss:
                raise ValueError(
                    f"confidence is {self.confidence}, but the target is a size: choose target_loss "
                    "or target_kl"
                )
        if self.grid < 3:
            raise ValueError(f"grid is {self.grid}; it must be at least 3 candidates per round")
        if self.random_controls < 20:
            raise ValueError(f"random_controls is {self.random_controls}; it must be at least 20")
        for name, allowed in (
            ("target", ("loss", "kl", "edges", "nodes", "match_soft")),
            ("calibrate", ("inside", "after", "off")),
            ("order", ("top", "greedy")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {cut(getattr(self, name))}; choose one of {allowed}")

    @property
    def is_loss(self) -> bool:
        """Whether the target is a number of nats rather than a size."""
        return self.target in ("loss", "kl")

    @property
    def kl_share(self) -> float:
        """What a nat of KL counts beside a nat of loss, where both are demanded."""
        return 0.0 if self.kl is None else self.value / self.kl


_MOST = 10**7


def _whole(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
        if value > _MOST:  # arrays of this length would be made
            raise ValueError(f"{name} is {value}; it must be at most {_MOST}")


_INFINITE = float("inf")
Limits = Mapping[str, tuple[str, Callable[[float], bool]]]
_POSITIVE = ("(0, inf)", lambda value: 0 < value < _INFINITE)
_NOT_NEGATIVE = ("[0, inf)", lambda value: 0 <= value < _INFINITE)
LIMITS: Limits = MappingProxyType(
    {
        "k_coef": _NOT_NEGATIVE,
        "init_noise_scale": _NOT_NEGATIVE,
        "init_noise_bias": ("[-15, 15]", lambda value: -15 <= value <= 15),
        "wd": _NOT_NEGATIVE,
        "lr": _POSITIVE,
        "inv_beta2": ("[1e-6, 1]", lambda value: 0.99e-6 <= value <= 1),
        "lr_warmup_frac": ("[0, 1)", lambda value: 0 <= value < 1),
        "heaviside_temp": _POSITIVE,
        "target_sparsity": ("[0, 1)", lambda value: 0 <= value < 1),
        "target_warmup_frac": ("[0, 1]", lambda value: 0 <= value <= 1),
        "multiplier_lr": _POSITIVE,
        "aim": ("(0, 1]", lambda value: 0 < value <= 1),
        "held": _POSITIVE,
        "kl_weight": _NOT_NEGATIVE,
    }
)


@flax.struct.dataclass
class Hyper:
    """What a tuner may vary without another program: scalars, or `[J]` with a leading job axis.

    The first eight are those of Gao et al. 2025, Table 2.

    Attributes:
      k_coef: nats per open part (`count`); where that starts (`hold`).
      init_noise_scale: standard deviation of the initial scores. Heaviside gates that start alike close
        alike, all at once where the loss has no gradient yet (a KL of 0, a task already solved).
      init_noise_bias: their mean; of hard-concrete gates they are log odds.
      wd: decoupled weight decay of the scores.
      lr: peak learning rate.
      inv_beta2: 1 - b2 of Adam.
      lr_warmup_frac: fraction of the steps with a rising learning rate.
      heaviside_temp: temperature of the surrogate gradient.
      target_sparsity: fraction of gates to close (`lagrangian`).
      target_warmup_frac: fraction of the steps over which that target rises from 0.
      multiplier_lr: step size of the multipliers' ascent.
      aim: fraction of the target at which `hold` holds the loss or the KL: selection goes on from there.
      held: that target, in nats.
      kl_weight: of the KL beside the task loss, where both are minimised.
    """

    k_coef: Any = 0.0
    init_noise_scale: Any = 1e-2
    init_noise_bias: Any = 1e-1
    wd: Any = 1e-3
    lr: Any = 1e-2
    inv_beta2: Any = 5e-2
    lr_warmup_frac: Any = 0.0
    heaviside_temp: Any = 1.0
    target_sparsity: Any = 0.0
    target_warmup_frac: Any = 0.7
    multiplier_lr: Any = 0.3
    aim: Any = 0.5
    held: Any = 0.15
    kl_weight: Any = 1.0

    def to_dict(self) -> dict[str, float]:
        """Plain numbers of one job."""
        return {name: float(value) for name, value in dataclasses.asdict(self).items()}

    def check(self) -> None:
        """Refuses what cannot work, before any work.

        Raises:
          ValueError: a value outside its limits, or not a number, once rounded to float32.
        """
        check_limits(self.to_dict(), LIMITS)


def check_limits(values: Mapping[str, float], limits: Limits) -> None:
    """Raises ValueError for a value outside its limits, or not a number, once rounded to float32."""
    for name, value in values.items():
        described, fits = limits[name]
        with np.errstate(over="ignore"):
            rounded = float(np.float32(value))
        if not fits(rounded):
            raise ValueError(f"{name} is {value:g}; it must be in {described}")


def stack_hypers(hypers: Sequence[Any]) -> Any:
    """Puts J jobs' hyperparameters on a leading axis: every field float32 `[J]`."""
    return jax.tree.map(lambda *values: jnp.asarray(values, jnp.float32), *hypers)
