"""The benchmark: its lines carry what is promised, its arrays obey the sparsity of pretraining."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply, init_params
from circuitjax.pretrain.sparsify import project
from experiments import bench_against
from experiments.bench_timing import Timed, measured_line
from experiments.bench_workloads import (
    DENSITY,
    WORKLOADS,
    draw,
    make_config,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = {
    "framework", "version", "backend", "device", "dtype", "workload", "abs_top_k", "measurement",
    "seconds", "min", "max", "repeats", "memory_before_mib", "peak_memory_mib",
    "device_peak_memory_mib",
}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.bench", "--workloads=XS", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_one_json_line_per_measurement():
    done = run("--abs_top_k=off", "--chunk=2")
    assert done.returncode == 0, done.stderr
    lines = {line["measurement"]: line for line in map(json.loads, done.stdout.splitlines())}
    calibrations = {"calibrate", "calibrate_forward", "calibrate_fit"}
    assert set(lines) == {"step", "select", "probe", "jobs"} | calibrations
    for line in lines.values():
        assert set(line) >= FIELDS
        assert 0 < line["min"] <= line["seconds"] <= line["max"]
        assert line["repeats"] >= 5
        assert line["peak_memory_mib"] >= line["memory_before_mib"] > 0
    assert lines["select"]["probes"] >= 12
    assert lines["jobs"]["ratio"] > 0


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--workloads=L", "--workloads holds 'L'; choose from XS, S, M"),
        ("--measurements=steps", "--measurements holds 'steps'"),
        ("--abs_top_k=maybe", "--abs_top_k holds 'maybe'"),
        ("--repeats=4", "--repeats=4 must be at least 5"),
        ("--chunk=1", "--chunk=1 must be at least 2"),
    ],
)
def test_a_wrong_flag_is_one_line(flag, told):
    done = run(flag)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]


def test_arrays_fit_the_model_and_are_sparse():
    workload = WORKLOADS["XS"]
    config, arrays = make_config(workload, abs_top_k=True), draw(workload)
    wanted = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    jax.tree.map(lambda w, a: np.testing.assert_equal(a.shape, w.shape), wanted, arrays.params)
    assert {site: fill.shape for site, fill in arrays.fills.items()} == shapes(config)
    assert sorted(arrays.ranks) == list(range(config.num_nodes))
    assert arrays.validation.min() > 0
    assert arrays.validation.max() < config.vocab_size
    # The matrices are fixed points of the projection that pretraining applies.
    matrices = {
        "layers": {
            name: value for name, value in arrays.params["layers"].items() if value.ndim == 3
        },
        "embed": arrays.params["embed"],
        "unembed": arrays.params["unembed"],
    }
    jax.tree.map(np.testing.assert_array_equal, project(matrices, DENSITY), matrices)
    jax.tree.map(lambda m: np.testing.assert_allclose((m != 0).mean(), 0.1, atol=1e-3), matrices)


def test_the_same_seed_draws_the_same_arrays():
    first, second = draw(WORKLOADS["XS"]), draw(WORKLOADS["XS"])
    jax.tree.map(np.testing.assert_array_equal, vars(first), vars(second))
    assert (draw(WORKLOADS["XS"], seed=1).ranks != first.ranks).any()


def test_a_line_gives_the_median():
    took = Timed([6.0, 2.0, 4.0, 18.0, 5.0], [2.0, 2.0, 8.0, 2.0, 2.0], 30.0)
    line = measured_line(took.per(2), measurement="step")
    assert line == {"measurement": "step", "seconds": 2.5, "min": 1.0, "max": 9.0,
                    "cpu_seconds": 1.0, "repeats": 5}  # fmt: skip


def test_products_of_a_forward_pass_are_those_that_are_compiled():
    """XLA counts all arithmetic: the products are most of it."""
    workload = WORKLOADS["S"]
    config = make_config(workload, False)
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    tokens = jax.ShapeDtypeStruct((1, workload.length), np.int32)
    last = jax.ShapeDtypeStruct((1, 1), np.int32)
    run = jax.jit(lambda p, t, at: apply(config, p, t, positions=at).logits)
    counted = run.lower(params, tokens, last).cost_analysis()["flops"]
    # All layers but the last are one loop, whose body is counted once.
    two = dataclasses.replace(workload, num_layers=2)
    assert two.forward_flops() < counted < 1.15 * two.forward_flops()


def test_both_are_run_in_turn_and_compared_within_a_round(monkeypatch):
    asked = []

    def lines(program, arguments):
        asked.append((program, *arguments))
        seconds = {"bench": [1.0, 2.0], "bench_torch": [3.0, 4.0]}[program][len(asked) > 2]
        return {
            name: {"seconds": seconds, "cpu_seconds": seconds, "peak_memory_mib": seconds}
            for name in ("step", "probe", "select")
        }

    monkeypatch.setattr(bench_against, "_lines", lines)
    monkeypatch.setattr(bench_against, "say", lambda line: None)
    monkeypatch.setattr(bench_against, "matmul_rate", lambda workload: 50.0)
    rows = bench_against.against("torch", "XS", "off", ["step", "select"], 2, 5)
    flags = ["--workloads=XS", "--abs_top_k=off", "--measurements=step,select", "--repeats=5"]
    assert asked == [("bench", *flags), ("bench_torch", *flags)] * 2
    step, probe = rows
    assert (step["measurement"], probe["measurement"]) == ("step", "probe")
    assert (step["ratio"], step["least"], step["greatest"]) == (2.5, 2.0, 3.0)
    assert step["ours"]["seconds"] == 1.5
    work = 2 * 2 * WORKLOADS["XS"].pairs * WORKLOADS["XS"].forward_flops() / 1e9
    assert step["torch"]["share_of_matmul"] == pytest.approx(work / 3.5 / 50.0)
    assert "2.50 (2.00-3.00)" in bench_against.table("torch", rows)


def test_a_peer_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(bench_against, "say", lambda line: None)
    monkeypatch.setattr(
        bench_against.subprocess, "run",
        lambda *args, **more: subprocess.CompletedProcess([], 2, "", "error: no torch\n"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="bench ended with 2: error: no torch"):
        bench_against.against("torch", "XS", "off", ["step"], 1, 5)
