"""Tables of many audits: checks by circuit, what polish took, what the controls needed.

    python -m experiments.audit_table --audits=runs/audit/tiny-python

Every finished audit below --audits is read; nothing is computed anew. --out also writes the tables to a
Markdown file.
"""

import pathlib
import sys

from absl import flags

from circuitjax.core.files import require_place, write_bytes
from circuitjax.report.audit_table import (
    checks_table,
    controls_table,
    hypotheses_table,
    polish_table,
    read_audits,
)
from experiments.command import exit_on_bad_input, run_main
from experiments.progress import tell_next

_AUDITS = flags.DEFINE_string("audits", "runs/audit", "Directory with audits below it.")
_OUT = flags.DEFINE_string("out", None, "Markdown file.")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    audits = read_audits(pathlib.Path(_AUDITS.value))
    if _OUT.value:
        require_place(_OUT.value)
    parts = [
        "## Checks",
        "Figures in bold miss what is wanted.",
        checks_table(audits),
        "## Tests",
        "p-values adjusted over all tests of all circuits; in bold those at most 0.05. A small one of "
        "necessity speaks for the circuit, of equivalence and independence against it.",
        hypotheses_table(audits),
        "## Polish",
        polish_table(audits),
        "## Other seeds and controls",
        controls_table(audits),
    ]
    text = "\n\n".join(parts) + "\n"
    if _OUT.value:
        write_bytes(pathlib.Path(_OUT.value), text.encode())
    print(text, end="")
    tell_next("docs/how-to/read-an-audit.md says what each check means", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
