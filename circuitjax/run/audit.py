"""An audit in a directory.

asked.json      what the directory is for; written first
audit.md        the verdict as a table, and the figures behind it
*.png, *.svg    pictures
polished/       the circuit without what it does not need
audit.json      every figure; written last, so its presence means "finished"
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from circuitjax.audit.audit import AuditConfig, audit_circuit
from circuitjax.audit.record import AuditFigures
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.files import write_bytes, write_json
from circuitjax.core.host import alone_in
from circuitjax.core.records import seal
from circuitjax.model.record import Model
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search
from circuitjax.prune.provenance import hyper_of, search_of
from circuitjax.report.audit_plots import plot_audit
from circuitjax.report.audit_table import read_audit
from circuitjax.report.audit_text import audit_markdown
from circuitjax.run.directory import AUDIT, claim, digest_of, holds, versions
from circuitjax.run.search import asked_of
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = ["run_audit"]


def _finished(directory: pathlib.Path, digest: str) -> AuditFigures | None:
    if not (directory / "audit.json").exists():
        return None
    figures = read_audit(directory / "audit.json")
    if figures.settings.get("asked") != digest:
        raise ValueError(
            f"{directory} is damaged: its audit.json is not that of its {AUDIT.record}: choose another "
            "--out, or do the audit again with --overwrite"
        )
    return figures


def run_audit(
    model: Model,
    task: Task | ContrastTask,
    circuit: Circuit,
    directory: pathlib.Path,
    config: AuditConfig | None = None,
    *,
    search: Search | None = None,
    hyper: Hyper | None = None,
    start: Circuit | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> AuditFigures:
    """Audits a circuit of any grain and writes what was found; a finished audit is only read.

    Args:
      model, task, circuit, config, search, hyper, start, say: see `audit.audit_circuit`.
      directory: made if need be.
      overwrite: replace another audit.

    Returns:
      The figures, as in audit.json; their settings say which audit it is, and with which versions.

    Raises:
      ValueError: see `audit_circuit`; a directory that holds something else, or in which another
        process works.
    """
    config = config or AuditConfig()
    # Of its record, not of its gates: the same gates may have been cut at another target.
    search, hyper = search or search_of(circuit), hyper or hyper_of(circuit)
    identity: dict[str, Any] = {
        **asked_of(model, task),
        "circuit": circuit.content_hash,
        "audit": dataclasses.asdict(config),
        "search": search.to_dict(),
        "hyper": None if hyper is None else hyper.to_dict(),
        "start": None if start is None else start.content_hash,
    }
    digest = digest_of(AUDIT, identity)
    if holds(AUDIT, directory, identity, overwrite=overwrite):
        try:
            found = _finished(directory, digest)
        except ValueError as error:
            if not overwrite:
                mend = "" if "--overwrite" in str(error) else "; --overwrite does the audit anew"
                raise ValueError(f"{error}{mend}") from None
            found = None
        if found is not None:
            return found
    with alone_in(directory):
        audit = audit_circuit(
            model, task, circuit, config, search=search, hyper=hyper, start=start, say=say
        )
        asked = {"circuit": circuit.content_hash, "asked": digest}
        settings = {**audit.figures.settings, **asked, "versions": versions()}
        figures = dataclasses.replace(audit.figures, settings=settings)
        holds(AUDIT, directory, identity, overwrite=overwrite)
        claim(AUDIT, directory, identity)
        if audit.polished is not None:
            audit.polished.save(directory / "polished", model)
        plot_audit(directory, figures, audit.odds)
        write_bytes(directory / "audit.md", audit_markdown(figures).encode())
        write_json(directory / "audit.json", seal(figures.to_dict()))
        return read_audit(directory / "audit.json")
