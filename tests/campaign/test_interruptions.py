"""Works that are killed, or whose disk is full: the same command goes on, to the same end.

The parts are programs of their own (see `interrupted` and `kills`), which these tests call; they take
minutes each. `SIGKILLS` kills are spread over the works.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.campaign.states import Recorder
from tests.campaign.works import WORKS
from tests.compiler import XLA_FLAGS

ROOT = pathlib.Path(__file__).parents[2]
SIGKILLS = 200


def told(module: str, *arguments: object) -> list[dict]:
    """The lines that a part prints, one for each work."""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.campaign.{module}", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **flags}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        print({**row, "faults": len(row["faults"])})
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_a_kill_at_every_file_event(work, tmp_path):
    (row,) = told("interrupted", tmp_path, "events", work)
    assert row["faults"] == []
    assert row["cases"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_kills_at_random_moments(work, tmp_path):
    kills = -(-SIGKILLS // len(WORKS))
    (row,) = told("kills", tmp_path, kills, work)
    assert row["faults"] == []
    assert row["cases"] >= kills


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("work", WORKS)
def test_disks_of_ten_sizes(work, tmp_path):
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "x", str(tmp_path)], check=True)
        subprocess.run(["umount", str(tmp_path)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    (row,) = told("interrupted", tmp_path, "disks", work)
    assert row["faults"] == []
    assert row["cases"] == 10


def test_the_recorder_sees_every_state(tmp_path):
    """A file written and renamed is never seen half; one that grows in place is."""
    at = tmp_path / "at"
    at.mkdir()
    recorder = Recorder(at, tmp_path / "copies")
    with recorder.recording():
        (at / ".a.tmp").write_text("whole")
        (at / ".a.tmp").rename(at / "a")
        (at / "log").write_text("one\n")
        with (at / "log").open("a") as file:
            file.write("two and more\n")
        (at / "a").unlink()
    seen = [{path.name: path.read_text() for path in state.iterdir()} for state in recorder.states]
    assert seen[0] == {}
    assert {"a": "whole"} in seen
    assert not any(one.get("a", "whole") != "whole" for one in seen)
    logs = {one["log"] for one in seen if "log" in one}
    assert {"", "one\n", "one\ntwo and more\n"} <= logs
    assert any("two" in log and not log.endswith("\n") for log in logs)  # torn
