"""Files: whole or not at all, with nothing left behind; messages that stay short."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from circuitjax.core import files


def hidden(directory: pathlib.Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


def test_a_value_is_cut_and_never_slow():
    doubled: tuple = ()
    for _ in range(60):
        doubled = (doubled, doubled)
    started = time.perf_counter()
    for value in (doubled, "x" * 10**7, [list(range(1000))] * 1000, 10**5000, {"a" * 999: 1}):
        assert len(files.cut(value)) <= 120
    assert time.perf_counter() - started < 1
    for value in (True, 3, 2.5, None, "x", [1, "a"], (1,), {"a": 1}):
        assert files.cut(value) == repr(value)
    assert "\n" not in files.cut(["a\nb", "c"])


def test_text_may_begin_with_a_mark(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_object(tmp_path / "a") == {}


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"^cannot read .*: Is a directory$"):
        files.read_text(tmp_path)


KILLED = """
    import os, pathlib, sys
    from circuitjax.core import files
    def stop(*_):
        print(flush=True)
        os.kill(os.getpid(), {signal})
        import time; time.sleep(60)
    os.replace = stop
    files.write_bytes(sys.argv[1], b"new")
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(tmp_path, name):
    target = tmp_path / "report.json"
    files.write_bytes(target, b"old")
    code = textwrap.dedent(KILLED).format(signal=int(getattr(signal, name)))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdout=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[2],
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            if name == "SIGKILL":
                writer.wait()
            assert len(hidden(tmp_path)) == 1
            assert target.read_bytes() == b"old"
            files.clean_leftovers(tmp_path, ["another.json"])
            assert len(hidden(tmp_path)) == 1
            files.clean_leftovers(tmp_path)
            assert len(hidden(tmp_path)) == (name == "SIGSTOP")
        finally:
            writer.kill()
    files.write_bytes(target, b"newer")  # the next writer of that file cleans too
    assert hidden(tmp_path) == []
    assert target.read_bytes() == b"newer"


def test_a_file_is_whole_as_soon_as_it_has_its_name(tmp_path, monkeypatch):
    """A kill right after the renaming must not find an empty file, however small the content."""
    real, seen = os.replace, []

    def replace(source, target):
        real(source, target)
        seen.append(pathlib.Path(target).read_bytes())

    monkeypatch.setattr(os, "replace", replace)
    contents = [b"x" * size for size in (0, 1, 4096, 8191, 8192, 100_000)]
    for content in contents:
        files.write_bytes(tmp_path / "a", content)
    assert seen == contents


def test_a_full_disk_leaves_the_file_of_before(tmp_path, monkeypatch):
    """/dev/full takes nothing: what was there stays, and nothing is left beside it."""
    files.write_bytes(tmp_path / "a", b"old")
    real = files._temporary

    def full(target):
        handle, name = real(target)
        os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
        return handle, name

    monkeypatch.setattr(files, "_temporary", full)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_leftovers_of_earlier_versions_go_and_other_files_stay(tmp_path):
    for name in (
        ".run.json.a1_xyz23",
        ".run.json.a1_xyz23.tmp",
        ".hidden",
        ".run.json.new",
        "a.tmp",
    ):
        (tmp_path / name).write_text("")
    (tmp_path / ".run.json.directory").mkdir()
    files.clean_leftovers(tmp_path)
    assert hidden(tmp_path) == [".hidden", ".run.json.directory", ".run.json.new"]
    assert (tmp_path / "a.tmp").exists()
    files.clean_leftovers(tmp_path / "missing")


def test_an_exception_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_writers_at_once_leave_one_whole_file(tmp_path):
    target = tmp_path / "a"
    contents = [bytes([65 + i]) * 5000 for i in range(4)]
    failures = []

    def write(content: bytes) -> None:
        try:
            for _ in range(50):
                files.write_bytes(target, content)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert target.read_bytes() in contents
    assert hidden(tmp_path) == []


def test_what_comes_from_outside_is_shown_on_one_line():
    assert files.one_line("a\nb\t c") == "a b c"
    assert files.one_line("x" * 10**6) == "x" * 197 + "..."
    assert files.reason(ValueError("a\n" * 300)).count("\n") == 0
    assert files.reason(KeyError()) == "KeyError"
