"""How tests have XLA compile: as fast as it can, since their programs run for milliseconds."""

import importlib.metadata

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


def forget_programs() -> None:
    """Lets go of compiled programs where a process holds so many that the compiler would run out."""
    from circuitjax.core import host  # not before the flags are set

    host.forget_programs()
