"""How tests have XLA compile: as fast as it can, since their programs run for milliseconds."""

import importlib.metadata
import pathlib

__all__ = ["XLA_FLAGS", "forget_programs"]

_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    "--xla_cpu_parallel_codegen_split_count=1",  # a program is not split among threads
]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The older emitter takes a third of the newer one's time. Later versions have the newer one alone,
    # and a process ends at a flag that it does not know.
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")

XLA_FLAGS = " ".join(_FLAGS)

_MAPS = pathlib.Path("/proc/self/maps")
_MOST_MAPS = (
    30_000  # of the 65,530 that Linux lets a process have: a compiled program takes several
)


def forget_programs() -> None:
    """Lets go of compiled programs where a process holds so many that the compiler would run out."""
    import jax  # not before the flags are set

    if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > _MOST_MAPS:
        jax.clear_caches()
