"""Groups of nodes that a reader names on the page ("supernodes"), and the file that keeps them.

    {"format": "circuitjax-groups-1", "circuit": content hash of the circuit,
     "groups": [{"name": "which mark is open", "nodes": ["0.attn.act_in.6", ...]}, ...]}

The page offers this file; beside `circuit.json` it is `groups.json`. It is the reader's own and may
be edited by hand, so it carries no hash of itself; it names the circuit. A node is in one group at most.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import cut, read_object, write_json

__all__ = ["FORMAT", "Group", "read_groups", "write_groups"]

FORMAT = "circuitjax-groups-1"
_MOST_BYTES, _MOST_GROUPS, _LONGEST = 2**22, 200, 80


class Group(NamedTuple):
    """Some nodes of a circuit under one name."""

    name: str
    nodes: tuple[str, ...]


def read_groups(path: str | os.PathLike[str], circuit: Circuit) -> tuple[Group, ...]:
    """The groups in a file.

    Raises:
      ValueError: unreadable, another circuit's, or groups that cannot be: one line that names the file.
    """
    fields = read_object(path, _MOST_BYTES)
    if fields.get("format") != FORMAT:
        raise ValueError(
            f"{path}: format is {cut(fields.get('format'))}; it must be {FORMAT!r}, as the page saves it"
        )
    if fields.get("circuit") != circuit.content_hash:
        raise ValueError(
            f"{path} groups the nodes of circuit {cut(fields.get('circuit'), 24)} and this one is "
            f"{circuit.content_hash[:16]}...: save groups from this circuit's page"
        )
    listed = fields.get("groups")
    if not isinstance(listed, list) or len(listed) > _MOST_GROUPS:
        raise ValueError(f"{path}: groups must be a list of at most {_MOST_GROUPS}")
    known, taken = set(circuit.nodes()), set[str]()
    found = []
    for number, one in enumerate(listed):
        where = f"{path}: groups[{number}]"
        name, nodes = _checked(one, where)
        for node in nodes:
            if node not in known:
                raise ValueError(f"{where}: {cut(node)} is no node of this circuit: leave it out")
            if node in taken:
                raise ValueError(
                    f"{where}: {cut(node)} is named twice: a node is in one group at most"
                )
            taken.add(node)
        found.append(Group(name, nodes))
    return tuple(found)


def _checked(one: Any, where: str) -> tuple[str, tuple[str, ...]]:
    if not isinstance(one, dict) or set(one) != {"name", "nodes"}:
        raise ValueError(f"{where} is {cut(one)}; it must be an object of name and nodes")
    name, nodes = one["name"], one["nodes"]
    if not isinstance(name, str) or not 0 < len(name.strip()) <= _LONGEST:
        raise ValueError(f"{where}: name is {cut(name)}; it must have 1 to {_LONGEST} characters")
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise ValueError(f"{where}: nodes is {cut(nodes)}; it must be a list of nodes' names")
    return name, tuple(nodes)


def write_groups(path: str | os.PathLike[str], circuit: Circuit, groups: Sequence[Group]) -> None:
    """Writes groups to a file, atomically, for `read_groups`."""
    rows = [{"name": group.name, "nodes": list(group.nodes)} for group in groups]
    write_json(path, {"format": FORMAT, "circuit": circuit.content_hash, "groups": rows})
