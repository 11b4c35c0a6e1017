"""Two circuits of one model side by side: what both keep, and what each keeps alone."""

from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut

__all__ = ["compared"]

_MOST = 2000  # names of nodes that a page lists


def compared(circuit: Circuit, other: Circuit) -> dict[str, Any]:
    """What two circuits share.

    Args:
      circuit: the one that is shown.
      other: the one it is compared with.

    Returns:
      JSON-able: title and ablation of the other; nodes and edges, each [both, this one alone, the other
      alone], an edge being told by its two ends; `shared`, places in the shown circuit's `nodes`; and
      `missing`, the other's own nodes, at most 2,000 of them.

    Raises:
      ValueError: of another model, or one of the two gates residual edges and the other does not.
    """
    if other.model_hash != circuit.model_hash:
        raise ValueError(
            f"the circuit to compare with is of model {cut(other.model_name)} "
            f"({other.model_hash[:8]}) and this one of {cut(circuit.model_name)} "
            f"({circuit.model_hash[:8]}): compare circuits of one model"
        )
    if ("mask" in other.opened) != ("mask" in circuit.opened):
        raise ValueError(
            f"the circuit to compare with is of grain {other.grain} and this one of {circuit.grain}: "
            "residual edges can be compared with residual edges only"
        )
    names, theirs = circuit.nodes(), other.nodes()
    own, others = ({edge[:2] for edge in one.edges()} for one in (circuit, other))
    kept, them = set(names), set(theirs)
    missing = [name for name in theirs if name not in kept]
    return {
        "title": str(other.provenance.get("task") or "circuit"),
        "ablation": other.ablation,
        "nodes": [len(kept & them), len(kept - them), len(them - kept)],
        "edges": [len(own & others), len(own - others), len(others - own)],
        "shared": [place for place, name in enumerate(names) if name in them],
        "missing": missing[:_MOST],
    }
