"""Configuration of a pruning run: what shapes the program (static) and what a tuner varies (traced)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "LIMITS",
    "Hyper",
    "Limits",
    "PruneConfig",
    "check_limits",
    "default_hyper",
    "stack_hypers",
]


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Static part: another value is another compiled program.

    Attributes:
      target_loss: task loss in nats that the circuit must not exceed.
      steps: mask-training steps.
      batch_size: pairs per step (both prompts of each go through the model).
      ablation: what a closed node holds: its mean over pretraining text, or zero.
      tie_qk: one gate for a q channel and the k channel it is multiplied with.
      calibrate: `inside` takes the smallest k whose calibrated loss meets the target, `after`
        calibrates the circuit chosen without, `off` never does.
      loss: `binary` is a softmax over the two completions, `vocabulary` over all tokens.
      train_pairs, validation_pairs, test_pairs: sizes of the three disjoint sets.
      grid: candidate k per round of the bisection.
      chunk: training steps per call of the compiled program.
      random_controls: size- and site-matched random node sets for the necessity test.
    """

    target_loss: float = 0.15
    steps: int = 100
    batch_size: int = 16
    ablation: Literal["mean", "zero"] = "mean"
    tie_qk: bool = False
    calibrate: Literal["inside", "after", "off"] = "inside"
    loss: Literal["binary", "vocabulary"] = "binary"
    train_pairs: int = 4096
    validation_pairs: int = 1024
    test_pairs: int = 512
    grid: int = 12
    chunk: int = 25
    random_controls: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.target_loss < float("inf"):
            raise ValueError(f"target_loss is {self.target_loss}; it must be in (0, inf) nats")
        for name in (
            "steps",
            "batch_size",
            "train_pairs",
            "validation_pairs",
            "test_pairs",
            "chunk",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
        if self.grid < 3:
            raise ValueError(f"grid is {self.grid}; it must be at least 3 candidates per round")
        if self.random_controls < 20:
            raise ValueError(f"random_controls is {self.random_controls}; it must be at least 20")
        for name, allowed in (
            ("ablation", ("mean", "zero")),
            ("calibrate", ("inside", "after", "off")),
            ("loss", ("binary", "vocabulary")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return dataclasses.asdict(self)


_INFINITE = float("inf")
Limits = Mapping[str, tuple[str, Callable[[float], bool]]]
LIMITS: Limits = MappingProxyType(
    {
        "k_coef": ("[0, inf)", lambda value: 0 <= value < _INFINITE),
        "init_noise_scale": ("[0, inf)", lambda value: 0 <= value < _INFINITE),
        "init_noise_bias": ("[-1, 1]", lambda value: -1 <= value <= 1),
        "wd": ("[0, inf)", lambda value: 0 <= value < _INFINITE),
        "lr": ("(0, inf)", lambda value: 0 < value < _INFINITE),
        "inv_beta2": ("[1e-6, 1]", lambda value: 0.99e-6 <= value <= 1),
        "lr_warmup_frac": ("[0, 1)", lambda value: 0 <= value < 1),
        "heaviside_temp": ("(0, inf)", lambda value: 0 < value < _INFINITE),
    }
)


@flax.struct.dataclass
class Hyper:
    """Traced part (Gao et al. 2025, Table 2): scalars, or `[J]` with a leading job axis.

    Attributes:
      k_coef: weight of the number of open nodes, in nats per node.
      init_noise_scale: standard deviation of the initial mask parameters.
      init_noise_bias: their mean.
      wd: decoupled weight decay.
      lr: peak learning rate.
      inv_beta2: 1 - b2 of Adam.
      lr_warmup_frac: fraction of the steps with a rising learning rate.
      heaviside_temp: temperature of the surrogate gradient.
    """

    k_coef: Any
    init_noise_scale: Any = 1e-2
    init_noise_bias: Any = 1e-1
    wd: Any = 1e-3
    lr: Any = 1e-2
    inv_beta2: Any = 5e-2
    lr_warmup_frac: Any = 0.0
    heaviside_temp: Any = 1.0

    def to_dict(self) -> dict[str, float]:
        """Plain numbers of one job."""
        return {name: float(value) for name, value in dataclasses.asdict(self).items()}

    def check(self) -> None:
        """Refuses what cannot work, before any work.

        Raises:
          ValueError: a value outside its limits, or not a number, once rounded to float32: inv_beta2
            from 1e-6 (below, 1 - inv_beta2 is nearly 1 itself), lr and heaviside_temp above 0.
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


def default_hyper(num_nodes: int, **changes: float) -> Hyper:
    """The published centres (Table 2) but for three: k_coef = 18 / N, lr 0.01, no warm-up.

    The useful k_coef goes as one over the number of nodes; 18 is the published 1e-4 times its N.
    """
    hyper = Hyper(**{"k_coef": 18.0 / num_nodes, **changes})
    hyper.check()
    return hyper


def stack_hypers(hypers: Sequence[Any]) -> Any:
    """Puts J jobs' hyperparameters on a leading axis: every field float32 `[J]`."""
    return jax.tree.map(lambda *values: jnp.asarray(values, jnp.float32), *hypers)
