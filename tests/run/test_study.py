"""A study: killed or not it ends alike; runs are those of plain pruning; what is wrong is told."""

import dataclasses
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from circuitjax.core.host import alone_in
from circuitjax.prune.candidates import candidates_of
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import default_search
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.train import Job
from circuitjax.run.observations import append_round, read_rounds
from circuitjax.run.study import best_runs, run_study, winner
from circuitjax.tune import carbs
from tests.run.planted_study import JOBS, ROUNDS, study
from tests.run.runs import changed

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = 10


def rows_of(directory, jobs=JOBS):
    rounds = read_rounds(directory / "observations.jsonl", jobs)
    rows = [row for round_ in rounds for row in round_]
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def found_by(ours, problem, jobs):
    """What plain pruning finds with these jobs."""
    state = train_gates(problem, ours.search, initial_state(problem, ours.search, jobs))
    return candidates_of(problem, ours.search, jobs, state)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study") / "whole"
    with alone_in(directory):
        state = run_study(study(directory))
    return directory, state


def test_runs_are_those_of_plain_pruning(finished):
    directory, state = finished
    ours = study(directory)
    problem = ours.problem()
    rows = rows_of(directory)
    assert len(rows) == ROUNDS * JOBS == len(state.observations)
    for row in (rows[0], rows[-1]):
        job = Job(row["seed"], Hyper(**row["params"]))
        (alone,) = found_by(ours, problem, [job])
        assert (row["edges"], row["nodes"]) == (alone.edges, alone.nodes)
        assert row["failed"] == (not alone.choice.reached)


def test_the_winner_was_measured_and_is_expected_to_be_best(finished):
    directory, state = finished
    hyper, found = winner(study(directory), state)
    assert {name: hyper.to_dict()[name] for name in found.params} == pytest.approx(
        dict(found.params)
    )
    rows = [row for row in rows_of(directory) if not row["failed"]]
    mine = [math.log(row["edges"]) for row in rows if row["params"] == dict(found.params)]
    assert found.output == pytest.approx(np.mean(mine))
    # A run is one draw, so it need not be the lowest; it is not among the worse half.
    assert found.output <= np.median([math.log(row["edges"]) for row in rows])


def test_the_best_runs_are_jobs_that_repeat_them(finished):
    directory, _ = finished
    rows = rows_of(directory)
    jobs = best_runs(study(directory), rows, 2)
    edges = {row["seed"]: row["edges"] for row in rows if not row["failed"]}
    assert [edges[job.seed] for job in jobs] == sorted(edges.values())[:2]
    ours = study(directory)
    problem = ours.problem()
    found = found_by(ours, problem, jobs)
    assert [one.edges for one in found] == [edges[job.seed] for job in jobs]
    assert best_runs(ours, [{**row, "failed": True} for row in rows], 2) == []


def test_a_finished_study_computes_nothing(finished):
    directory, state = finished
    before = (directory / "observations.jsonl").read_bytes()
    assert run_study(study(directory)) == state
    assert (directory / "observations.jsonl").read_bytes() == before


@pytest.mark.slow  # eleven processes, each of which starts JAX
def test_a_study_killed_at_random_moments_ends_alike(finished, tmp_path):
    """SIGKILL after a random number of chunks, ten times, then to the end."""
    whole, state = finished
    directory = tmp_path / "killed"
    rng, kills = random.Random(0), 0
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"), "JAX_PLATFORMS": "cpu"}
    fast = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.run.planted_study", str(directory)],
            cwd=ROOT,
            env={**os.environ, **cache, **fast},
            stdout=subprocess.PIPE,
            text=True,
        )
        chunks = rng.randrange(3) if kills < KILLS else 10**6
        last = ""
        for line in process.stdout:
            last = line.strip()
            if last == "done" or chunks == 0:
                break
            chunks -= 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if last == "done":
            break
        kills += 1
    assert kills >= KILLS
    assert rows_of(directory) == rows_of(whole)
    ours = study(directory)
    again = run_study(ours)
    assert winner(ours, again) == winner(study(whole), state)


def observation(number, **changed):
    counts = {"id": number, "round": number // 2, "seed": 1, "edges": 9, "nodes": 3}
    seconds = {"seconds_training_round": 0.1, "seconds_selection_round": 0.2}
    rest = {"origin": "first", "params": {"lr": 0.1}, "failed": False, "output": number / 7}
    return {**counts, **rest, "cost": 5.0, **seconds, **changed}


def test_a_cut_round_is_taken_off_and_whole_ones_stay(tmp_path):
    path = tmp_path / "observations.jsonl"
    rows = [observation(i) for i in range(4)]
    append_round(path, rows[:2])
    append_round(path, rows[2:])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = read_rounds(path, 2, mend=False)
        assert path.read_bytes() == whole[:cut]
        assert found == read_rounds(path, 2)
        assert [row for round_ in found for row in round_] == rows[: len(found) * 2]
        assert whole.startswith(path.read_bytes())
        append_round(path, rows[len(found) * 2 :])
        assert path.read_bytes() == whole


def test_a_flipped_bit_of_an_observation_is_told(tmp_path):
    """Every bit of a line, its hash too; lines of earlier versions have none and are read."""
    path = tmp_path / "observations.jsonl"
    rows = [observation(i) for i in range(3)]
    append_round(path, rows)
    whole = path.read_bytes()
    for place in range(whole.index(b"\n"), whole.rindex(b"\n", 0, -1)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            said = ""
            try:
                found = [row for (row,) in read_rounds(path, 1, mend=False)]
            except ValueError as error:
                found, said = rows, str(error)
            assert found == rows, (place, bit)
            assert not said or "is no observation" in said
            assert "\n" not in said
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row for (row,) in read_rounds(path, 1)] == rows


def test_a_broken_line_in_the_middle_is_told(tmp_path):
    path = tmp_path / "observations.jsonl"
    first, last = (json.dumps(observation(i)) for i in (0, 2))
    path.write_text(f"{first}\nnonsense\n{last}\n")
    with pytest.raises(ValueError, match="line 2 is no observation"):
        read_rounds(path, 1)
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"failed": "no"}, "failed is 'no'; it must be true or false"),
        ({"output": None}, "output is None; it must be a finite number"),
        ({"cost": -1}, "cost is -1"),
        ({"params": [1]}, "params is"),
        ({"params": {"lr": "x"}}, "lr is 'x'"),
        ({"id": 4}, "its id is 4, 0 comes next"),
        ({"edges": 1.5}, "edges is 1.5"),
    ],
)
def test_a_line_of_another_kind_is_told(changed, words, tmp_path):
    path = tmp_path / "observations.jsonl"
    for text in (json.dumps(observation(0, **changed)), "{}", "[]", "3"):
        path.write_text(f"{text}\n")
        with pytest.raises(ValueError, match="line 1 is no observation") as caught:
            read_rounds(path, 1)
        assert words in str(caught.value) or text in ("{}", "[]", "3")
        assert "\n" not in str(caught.value)


def test_another_study_is_refused_and_nothing_is_lost(finished):
    directory, _ = finished
    before = (directory / "observations.jsonl").read_bytes()
    ours = study(directory)
    for change, name in (
        ({"seed": 1}, "seed"),
        ({"jobs": 3}, "jobs"),
        ({"search": changed(ours.search, steps=50)}, "search"),
        ({"config": carbs.CarbsConfig(radius=0.5)}, "carbs"),
    ):
        with pytest.raises(ValueError, match=f"a study with another {name}"):
            run_study(dataclasses.replace(ours, **change))
    assert (directory / "observations.jsonl").read_bytes() == before


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="no study of ours"):
        run_study(study(tmp_path))


def test_a_trivial_task_is_refused_before_anything_is_written(tmp_path):
    ours = study(tmp_path)
    easy = dataclasses.replace(ours, search=changed(ours.search, value=0.7))
    with pytest.raises(ValueError, match="there is nothing to tune"):
        run_study(easy)
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_fails_alone(finished, tmp_path, monkeypatch):
    """One job's scores become NaN; the round goes on and the job's observation is a failure."""
    from circuitjax.run import study as module

    def poisoned(problem, search, jobs):
        state = initial_state(problem, search, jobs)
        tau = {**state.tau, "gates": state.tau["gates"].at[1, 0].set(np.nan)}
        return dataclasses.replace(state, tau=tau)

    monkeypatch.setattr(module, "initial_state", poisoned)
    run_study(dataclasses.replace(study(tmp_path), rounds=1))
    clean, found = rows_of(finished[0])[:JOBS], rows_of(tmp_path)
    assert found[1]["failed"]
    assert found[1]["output"] is None
    assert [found[i] for i in (0, 2, 3)] == [clean[i] for i in (0, 2, 3)]


def test_a_directory_is_one_processes_at_a_time(tmp_path):
    held = "from circuitjax.core.host import alone_in; import pathlib, sys, time\n"
    held += "with alone_in(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().strip() == "held"
        with pytest.raises(ValueError, match="another process works in"), alone_in(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with alone_in(tmp_path):
        pass


@pytest.mark.parametrize("grain", ["weights", "edges"])
def test_any_grain_can_be_tuned(grain, tmp_path):
    """A round of two runs; what is observed is what the runs' settings give."""
    ours = dataclasses.replace(
        study(tmp_path / "study"),
        search=default_search(
            grain, ablation="zero", steps=20, batch_size=8, train=64, validation=24, test=40,
            target_loss=0.4,
        ),
        rounds=1,
        jobs=2,
    )  # fmt: skip
    with alone_in(ours.directory):
        state = run_study(ours)
    assert len(state.observations) == 2
    rows = rows_of(ours.directory, ours.jobs)
    assert set(rows[0]["params"]) == set(ours.space.names)
    prompts = 3 * 2 * 8 * 20
    assert all(row["cost"] > prompts for row in rows)


def test_what_has_nothing_to_tune_is_refused(tmp_path):
    for search, message in (
        (changed(ranking="random"), "has nothing to tune"),
        (changed(target="edges", value=3), "choose target_loss or target_kl"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(study(tmp_path), search=search)
