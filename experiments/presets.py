"""Published settings, as defaults of the flags of `pruning_flags` that are not given.

gao2025       nodes, Heaviside gates, mean ablation, k_coef per open node, calibration after, 64 pairs
bhaskar2024   residual edges and writers, hard-concrete gates, interchange ablation, KL, a
              Lagrangian on the sparsity with its long warm-up, threshold that matches the soft gates
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gao2025": {
            "method": "nodes",
            "ablation": "mean",
            "calibrate": "after",
            "batch_size": 64,
        },
        "bhaskar2024": {
            "method": "edges",
            "gate": "hard_concrete",
            "control": "lagrangian",
            "minimise": "kl",
            "ablation": "interchange",
            "threshold": "match_soft",
            "steps": 3000,
            "target_warmup_frac": 2500 / 3000,
            "init": 10.0,
            "lr": 0.8,
            "target_sparsity": 0.98,
        },
    }
)
