"""What a gradient by every gate needs on each device, read off the compiled program: nothing is run."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from circuitjax.core.mesh import on_devices, params_sharding
from circuitjax.gated.conditions import refer_under
from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import init_params
from circuitjax.prune.evaluate import slopes

__all__ = ["device_memory"]


def device_memory(
    config: TransformerConfig, mesh: str, prompts: int, length: int
) -> dict[str, Any]:
    """Compiles the slope of the task loss by every gate on nodes, of a network of that description.

    Args:
      config: of the network; its parameters are never made.
      mesh: see `mesh.parse_mesh`.
      prompts: M of a step.
      length: T tokens of a prompt.

    Returns:
      Numbers of parameters, gates and devices, and GiB for each device: `arguments` (parameters above
      all), `temporaries`, `outputs`.

    Raises:
      ValueError: a mesh that these devices cannot make, or prompts beyond the context.
    """
    if length > config.context_length:
        raise ValueError(
            f"length is {length}, above the context length of {config.context_length}: shorten it"
        )
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    with on_devices(mesh):
        params = jax.tree.map(lambda s: s.update(sharding=params_sharding(s.shape)), shapes)
        model = NodeGates(params, None, config=config, ablation="zero")
        whole: Any = jax.ShapeDtypeStruct
        batch = Examples(
            tokens=whole((prompts, 2, length), jnp.int32),
            positions=whole((prompts, 1), jnp.int32),
            right=whole((prompts, 1), jnp.int32),
            wrong=whole((prompts, 1), jnp.int32),
        )
        gates = whole((model.num_gates,), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        reference = jax.eval_shape(
            lambda m, b, k: refer_under("zero", m, b, k, full=False), model, batch, key
        )
        compiled = slopes.lower(model, gates, batch, reference, kind="task").compile()
    memory: Any = compiled.memory_analysis()
    return {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
        "gates": model.num_gates,
        "devices": jax.device_count(),
        "arguments (GiB a device)": memory.argument_size_in_bytes / 2**30,
        "temporaries (GiB a device)": memory.temp_size_in_bytes / 2**30,
        "outputs (GiB a device)": memory.output_size_in_bytes / 2**30,
    }
