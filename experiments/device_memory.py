"""Says whether a network fits: compiles a gradient by every gate for a mesh of devices, runs nothing.

    python -m experiments.device_memory --config=my_config.json --mesh=model:8
    python -m experiments.device_memory --mesh=data:2,model:4 --devices=8   # a Llama of 1.3 billion

Parameters are shapes only, so that a network may be larger than this machine. --devices pretends to
that many (virtual CPU devices); without it the devices at hand are used. The figures are those of the
compiled program for one device, in GiB: what it is given, what it needs besides, and what it returns.
"""

import os
import pathlib
import re

from absl import flags

from circuitjax.core.files import read_object
from experiments import devices
from experiments.command import exit_on_bad_input, run_main
from experiments.progress import tell_next

flags.adopt_module_key_flags(devices)

_CONFIG = flags.DEFINE_string(
    "config", None, "JSON file of a network's description. Default: a Llama of 1.3 billion."
)
_DEVICES = flags.DEFINE_integer("devices", None, "Pretends to so many devices.", 1, 4096)
_BATCH = flags.DEFINE_integer("batch_size", 8, "Prompts of a step.", 1, 10**6)
_LENGTH = flags.DEFINE_integer("length", 64, "Tokens of a prompt.", 2, 10**6)

#: The shape of Llama 2 at 1.3 billion parameters: widths of 2048 and 5504, 24 layers, 32,000 tokens.
LLAMA = {
    "num_layers": 24,
    "d_model": 2048,
    "num_heads": 16,
    "d_head": 128,
    "d_mlp": 5504,
    "vocab_size": 32000,
    "context_length": 2048,
    "norm": "rms",
    "norm_eps": 1e-5,
    "activation": "silu",
    "gated_mlp": True,
    "position": "rotary",
    "rotary": {"dims": 128},
    "biases": False,
    "tied_unembedding": False,
}


def _pretend(devices: int) -> None:
    """Virtual devices, before JAX starts."""
    kept = re.sub(
        r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")
    )
    os.environ["XLA_FLAGS"] = f"{kept} --xla_force_host_platform_device_count={devices}"
    os.environ["JAX_PLATFORMS"] = "cpu"


@exit_on_bad_input
def main(argv: list[str]) -> None:
    """Compiles and prints the figures."""
    del argv
    fields = read_object(pathlib.Path(_CONFIG.value)) if _CONFIG.value else LLAMA
    if _DEVICES.value:
        _pretend(_DEVICES.value)
    from circuitjax.benchmarks.device_memory import device_memory
    from circuitjax.model.record import read_config

    config = read_config(_CONFIG.value or "the config", fields)
    found = device_memory(config, flags.FLAGS.mesh, _BATCH.value, _LENGTH.value)
    for name, value in found.items():
        print(f"{name:28s} {value:.3f}" if isinstance(value, float) else f"{name:28s} {value}")
    tell_next("another --mesh, until a device holds it; prune, audit and suite take the same flag")


if __name__ == "__main__":
    run_main(main)
