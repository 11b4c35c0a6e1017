"""Keeping freed memory is a request that is made or declined, never an error."""

import subprocess
import sys

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
