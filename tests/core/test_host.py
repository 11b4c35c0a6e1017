"""Keeping freed memory is a request that is made or declined; compiled programs are let go in time."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp

from circuitjax.core import host


def test_it_takes_effect_on_linux_with_glibc():
    # In a process of its own: the setting lasts as long as the process.
    code = (
        "import platform, sys\n"
        "from circuitjax.core.host import keep_freed_memory\n"
        "here = sys.platform == 'linux' and platform.libc_ver()[0] == 'glibc'\n"
        "assert keep_freed_memory() == here\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_declines_elsewhere(monkeypatch):
    monkeypatch.setattr(host.sys, "platform", "darwin")
    assert host.keep_freed_memory() is False


def test_programs_are_let_go_before_the_mappings_of_a_process_run_out(monkeypatch, tmp_path):
    most = tmp_path / "max_map_count"
    monkeypatch.setattr(host, "_MOST_MAPS", most)
    assert not host.forget_programs()  # nobody says how many there may be
    traced = []

    @jax.jit
    def double(x: jax.Array) -> jax.Array:
        traced.append(1)
        return 2 * x

    double(jnp.ones(3))
    most.write_text("1000000000\n")
    assert not host.forget_programs()
    double(jnp.ones(3))
    assert len(traced) == 1
    most.write_text("10\n")
    assert host.forget_programs() == pathlib.Path("/proc/self/maps").exists()
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert len(traced) == 1 + pathlib.Path("/proc/self/maps").exists()
