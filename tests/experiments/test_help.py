"""Every binary: help that fits a screen, --quiet, and a last line that says what to do next."""

import importlib
import importlib.util
import io
import pathlib
import re

import pytest

from experiments import console
from experiments.help import GROUPS, LONGEST, MOST_LINES
from tests.experiments.drive import drive

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"
NAMES = [
    name
    for name in console.binaries()
    if name != "bench_torch" or importlib.util.find_spec("torch") is not None
]


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("help")
    return {name: drive(name, [["--help"], ["--helpfull"]], cwd) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_a_screen_and_the_full_one_has_every_flag(helped, name):
    (code, short, _), (full_code, full, _) = helped[name]
    assert (code, full_code) == (0, 0)
    assert len(short.splitlines()) <= MOST_LINES
    assert max(map(len, short.splitlines())) <= LONGEST
    assert "python -m experiments." in short
    assert "  --quiet  " in short
    assert f"{name} --helpfull: " in short
    assert "other flags" not in full  # each has its purpose
    named = set(re.findall(r"^  --(?:\[no\])?(\w+)", full, re.MULTILINE))
    assert set(re.findall(r"^  --(?:\[no\])?(\w+)", short, re.MULTILINE)) <= named
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)) <= named


def test_no_flag_stands_in_two_groups():
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))


def test_a_search_shows_its_choices(helped):
    (_, short, _), (_, full, _) = helped["prune"]
    assert "--grain=nodes|weights|edges" in short
    assert "gao2025|faithful|bhaskar2024: " in short
    assert "more flags" in short
    assert "--lr" not in short
    assert "refused: tie_qk" in full


@pytest.mark.parametrize("name", NAMES)
def test_every_binary_says_what_to_do_next(name):
    assert "    tell_next(" in (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_quiet_leaves_the_result_alone(tmp_path):
    """The same run with and without: the table stays, progress and advice go."""
    asked = ["--seed=1", "--models=1", "--pairs=2"]
    loud, quiet = drive("ranking_truth", [asked, [*asked, "--quiet"]], tmp_path)
    assert (loud[0], quiet[0]) == (0, 0)
    assert "(1 of 1)" in loud[1]
    assert loud[1].splitlines()[1:] == quiet[1].splitlines()
    assert "  next: " in loud[2]
    assert quiet[2] == ""


class _Log(io.StringIO):
    def isatty(self):
        return False


def test_where_no_bar_moves_a_line_a_minute_says_the_time_left(monkeypatch, capsys):
    progress = importlib.import_module("experiments.progress")
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.sys, "stderr", _Log())
    monkeypatch.setattr(progress, "say", print)
    with progress.bar(100, "step") as shown:
        shown.update(10)  # of an earlier process
        for _ in range(9):
            shown.set_postfix_str("loss 0.5")
            shown.update(10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 30 of 100, about 2 min left  (loss 0.5)"
    assert all(line.startswith("step ") for line in lines)
    assert not any("100 of 100" in line for line in lines)
