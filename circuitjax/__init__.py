"""circuitjax: find, prove and show the circuits inside transformers.

import circuitjax as cj

model = cj.load_model("tiny-python")
task = cj.tasks.get("single_double_quote")
circuit = cj.find_circuit(model, task)
circuit.save("my_circuit", model)
small = cj.compact(model, circuit)

An edge is a residual edge (writer to reader) at the grain of edges, and a nonzero weight between two
kept nodes at those of nodes and weights.
"""

from circuitjax import tasks
from circuitjax.audit.audit import Audit, AuditConfig, audit_circuit
from circuitjax.audit.evidence import baseline, evidence
from circuitjax.audit.polish import polish
from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.circuit.compact import CompactCircuit, compact
from circuitjax.export.formats import export_circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import Output, apply, init_params
from circuitjax.prune.capabilities import refuse
from circuitjax.prune.config import Choices, DataConfig, Hyper, SelectionConfig, TrainConfig
from circuitjax.prune.defaults import PRESETS, Search, default_hyper, default_jobs, default_search
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job
from circuitjax.report.viewer.show import show
from circuitjax.run.audit import run_audit
from circuitjax.run.prune import run_pruning
from circuitjax.run.report import Report
from circuitjax.run.search import PruneRun
from circuitjax.run.study import Study, run_study
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.contrast import ContrastTask, Example
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import BUILT_IN, load_model, model_card

__all__ = [
    "BUILT_IN",
    "PRESETS",
    "SITES",
    "Audit",
    "AuditConfig",
    "Choices",
    "Circuit",
    "CompactCircuit",
    "ContrastTask",
    "DataConfig",
    "Example",
    "Hyper",
    "Job",
    "Model",
    "Output",
    "Pair",
    "Problem",
    "PruneRun",
    "Report",
    "Search",
    "SelectionConfig",
    "Study",
    "Task",
    "Tokenizer",
    "TrainConfig",
    "TransformerConfig",
    "apply",
    "audit_circuit",
    "baseline",
    "compact",
    "default_hyper",
    "default_jobs",
    "default_search",
    "evidence",
    "export_circuit",
    "find_circuit",
    "init_params",
    "load_circuit",
    "load_model",
    "model_card",
    "polish",
    "prepare",
    "refuse",
    "run_audit",
    "run_pruning",
    "run_study",
    "show",
    "tasks",
]

# Names of earlier versions, and what stands in their place.
_GONE = {
    "EdgeCircuit": "Circuit",
    "EdgeConfig": "Search",
    "GateHyper": "Hyper",
    "PruneConfig": "Search",
    "count_edges": "Circuit.num_edges",
    "edge_list": "Circuit.edges()",
    "find_baseline_circuit": "find_circuit(model, task, ranking=...)",
    "find_edge_circuit": "find_circuit(model, task, grain='edges')",
    "find_weight_circuit": "find_circuit(model, task, grain='weights')",
    "make_problem": "prepare(model, task, search)",
    "polish_edges": "polish",
    "total_edges": "prepare(model, task, search).whole.totals()",
}


def __getattr__(name: str) -> object:
    if name in _GONE:
        raise AttributeError(f"circuitjax has no {name!r} any more: use cj.{_GONE[name]}")
    raise AttributeError(f"module 'circuitjax' has no attribute {name!r}")
