"""Many devices say what one says: logits, gradients, a training, at every grain."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def said(mesh: str, devices: int, path: pathlib.Path) -> dict[str, np.ndarray]:
    """What a process with so many virtual devices writes."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    subprocess.run(
        [sys.executable, "-m", "tests.prune.on_devices", mesh, str(path)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    return dict(np.load(path))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return said("", 1, tmp_path_factory.mktemp("one") / "said.npz")


@pytest.mark.parametrize(
    ("mesh", "devices"),
    [
        ("jobs:2,data:2,model:2", 8),
        pytest.param("", 8, marks=pytest.mark.slow),
        pytest.param("jobs:4,model:2", 8, marks=pytest.mark.slow),
        pytest.param("data:3", 3, marks=pytest.mark.slow),  # divides neither jobs nor rows
    ],
)
def test_devices_agree(one, mesh, devices, tmp_path):
    many = said(mesh, devices, tmp_path / "said.npz")
    assert many.pop("devices") == devices
    for name, value in many.items():
        if name.endswith("/cut"):
            assert value.all() == ("jobs" in mesh), name
        else:
            np.testing.assert_allclose(value, one[name], atol=1e-5, err_msg=name)
