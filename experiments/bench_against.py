"""Product and reference in turn, each in a process of its own, and how they compare.

Each round runs both on the same cores, one after the other, and times a plain matrix product of the
workload's shapes: what else the machine does meets all three. A ratio is taken within a round; its
median over the rounds is told with the least and the greatest.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_timing import cores
from experiments.bench_workloads import WORKLOADS, Workload
from experiments.progress import say

__all__ = ["COMPARED", "against", "table"]

#: What is compared, {line of both programs: the measurement that gives it}.
COMPARED: Mapping[str, str] = {"step": "step", "probe": "select", "calibrate": "calibrate"}
_PRODUCTS, _TRIES = 8, 5
_STEP_PASSES = (
    2  # forward passes' worth of products of a step: weights are frozen, so one pass back
)


def matmul_rate(workload: Workload) -> float:
    """GFLOP/s of a plain float32 product of a step's activations and an MLP's weights, the best of 5."""
    rows = 2 * workload.pairs * workload.length
    x = jnp.ones((rows, workload.d_model), jnp.float32)
    w = jnp.ones((workload.d_model, workload.d_mlp), jnp.float32)
    product = jax.jit(lambda x, w: x @ w)
    jax.block_until_ready(product(x, w))
    best = np.inf
    for _ in range(_TRIES):
        start = time.perf_counter()
        for _ in range(_PRODUCTS):
            jax.block_until_ready(product(x, w))
        best = min(best, (time.perf_counter() - start) / _PRODUCTS)
    return float(2 * rows * workload.d_model * workload.d_mlp / best / 1e9)


def _lines(program: str, arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A program's JSON lines by measurement.

    Raises:
      ValueError: it failed, with the last line that it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise ValueError(f"{program} ended with {done.returncode}: {said[-1]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["measurement"]: row for row in rows}


def against(
    peer: str, name: str, top_k: str, measurements: Sequence[str], rounds: int, repeats: int
) -> list[dict[str, Any]]:
    """A row for each measurement of a workload: both programs over the rounds.

    Args:
      peer: `torch`.
      name: of the workload.
      top_k: `on` or `off`.
      measurements: of `COMPARED`'s values.
      rounds, repeats: how often both run, and how often each measures in a run.

    Raises:
      ValueError: a program failed.
    """
    workload, arguments = WORKLOADS[name], [f"--workloads={name}", f"--abs_top_k={top_k}"]
    arguments += [f"--measurements={','.join(measurements)}", f"--repeats={repeats}"]
    ours, theirs, rates = [], [], []
    for number in range(rounds):
        say(f"workload {name}, round {number + 1} of {rounds}")
        rates.append(matmul_rate(workload))
        ours.append(_lines("bench", arguments))
        theirs.append(_lines(f"bench_{peer}", arguments))
    rows = []
    for line, measurement in COMPARED.items():
        if measurement not in measurements:
            continue
        pairs = [(a[line], b[line]) for a, b in zip(ours, theirs, strict=True)]
        ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
        row = {
            "workload": name, "abs_top_k": top_k, "measurement": line, "rounds": rounds,
            "cores": cores(), "ours": _of([a for a, _ in pairs]), peer: _of([b for _, b in pairs]),
            "ratio": float(np.median(ratios)), "least": min(ratios), "greatest": max(ratios),
        }  # fmt: skip
        if line == "step":
            work = _STEP_PASSES * 2 * workload.pairs * workload.forward_flops() / 1e9
            rate = float(np.median(rates))
            row |= {"matmul_gflops": rate}
            for one in ("ours", peer):
                gflops = work / row[one]["seconds"]
                row[one] |= {"gflops": gflops, "share_of_matmul": gflops / rate}
        rows.append(row)
    return rows


def _of(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median, least and greatest seconds of the rounds, CPU seconds, greatest memory."""
    seconds = [line["seconds"] for line in lines]
    return {
        "seconds": float(np.median(seconds)),
        "min": min(seconds),
        "max": max(seconds),
        "cpu_seconds": float(np.median([line["cpu_seconds"] for line in lines])),
        "peak_memory_mib": max(line["peak_memory_mib"] for line in lines),
    }


def table(peer: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for a terminal: how many times faster the product is, and what both took."""
    lines = [
        f"{'':16}{'ratio':>7} {'(least-most)':14}{'ours':>9}{peer:>9}{'CPU':>7}{peer:>7}{'MiB':>7}"
        f"{peer:>7}"
    ]
    for row in rows:
        a, b = row["ours"], row[peer]
        name = f"{row['workload']} {row['measurement']}" + (
            " top-k" if row["abs_top_k"] == "on" else ""
        )
        spread = f"({row['least']:.2f}-{row['greatest']:.2f})"
        lines.append(
            f"{name:16}{row['ratio']:7.2f} {spread:14}{a['seconds']:8.3f}s{b['seconds']:8.3f}s"
            f"{a['cpu_seconds']:7.2f}{b['cpu_seconds']:7.2f}"
            f"{a['peak_memory_mib']:7.0f}{b['peak_memory_mib']:7.0f}"
        )
        if "matmul_gflops" in row:
            both = [f"{one['gflops']:.0f} ({one['share_of_matmul']:.0%})" for one in (a, b)]
            plain = f"{row['matmul_gflops']:.0f}"
            lines.append(f"{'':16}GFLOP/s {' and '.join(both)} of a plain product's {plain}")
    return "\n".join(lines)
