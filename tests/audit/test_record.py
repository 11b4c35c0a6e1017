"""What an audit writes comes back as it was, also from the version before."""

import json

import jsonschema
import pytest

from circuitjax.audit.checks import full_checks
from circuitjax.audit.record import AuditFigures
from circuitjax.core.records import seal
from circuitjax.report.audit_table import read_audit
from tests.audit.figures import AUDIT, EVIDENCE


def test_figures_come_back_from_json_and_fit_their_schema():
    fields = json.loads(json.dumps(AUDIT.to_dict()))
    assert AuditFigures.from_dict(fields) == AUDIT
    jsonschema.validate(fields, AuditFigures.schema())
    with pytest.raises(ValueError, match=r"audit.json lacks field 'unit'"):
        AuditFigures.from_dict({k: v for k, v in fields.items() if k != "unit"})
    with pytest.raises(ValueError, match=r"audit.json: evidence: loss_circuit is 'x'"):
        AuditFigures.from_dict({**fields, "evidence": {**fields["evidence"], "loss_circuit": "x"}})
    with pytest.raises(ValueError, match=r"audit.json has the unknown field 'more'"):
        AuditFigures.from_dict({**fields, "more": 1})


def test_an_audit_of_the_version_before_is_read_without_what_it_lacks(tmp_path):
    fields = json.loads(json.dumps(AUDIT.to_dict()))
    for name in ("tests", "minimality", "exhaustive", "bound"):
        del fields[name]
    for part in ("evidence", "baseline"):
        fields[part].pop("intervals")
    fields["evidence"].pop("necessity")
    fields["stability"].pop("core_interval")
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(seal(fields)))
    with pytest.raises(ValueError, match="lacks field"):
        read_audit(path)  # a record of this version lacks nothing
    path.write_text(json.dumps(seal({**fields, "format": "circuitjax-audit-2"})))
    found = read_audit(path)
    assert found.tests == []
    assert found.evidence.loss_circuit == EVIDENCE.loss_circuit
    checks = {check.name: check for check in full_checks(found)}
    assert checks["test loss"].passed
    assert checks["p of the circuit among random sets of its shape"].passed is None
    del fields["grain"]
    path.write_text(json.dumps(seal({**fields, "format": "circuitjax-audit-2"})))
    with pytest.raises(ValueError, match="lacks field 'grain'"):
        read_audit(path)
