"""circuitjax: find, prove and show the circuits inside transformers.

import circuitjax as cj

model = cj.load_model("tiny-python")
task = cj.tasks.get("single_double_quote")
circuit = cj.prune(model, task)
circuit.save("my_circuit", model)
small = cj.compact(model, circuit)
"""

from circuitjax import tasks
from circuitjax.audit.audit import AuditConfig, audit_circuit
from circuitjax.audit.evidence import baseline, evidence
from circuitjax.audit.polish import polish, polish_edges
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.compact import CompactCircuit, compact
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.circuit.export import export_circuit
from circuitjax.circuit.find import Job, default_jobs

# The function users call shares its name with the folder it lives above; the folder's modules stay
# importable by their full names.
from circuitjax.circuit.find import find_circuit as prune
from circuitjax.circuit.find_baseline import find_baseline_circuit
from circuitjax.circuit.find_edges import find_edge_circuit
from circuitjax.circuit.find_weights import find_weight_circuit
from circuitjax.circuit.graph import count_edges, edge_list, total_edges
from circuitjax.circuit.load import load_circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import Output, apply, init_params
from circuitjax.prune.config import Hyper, PruneConfig, default_hyper
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.residual import EdgeConfig
from circuitjax.report.prune_run import PruneRun
from circuitjax.report.run_directory import run_pruning
from circuitjax.report.viewer.show import show
from circuitjax.tasks.base import Pair, Task
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import BUILT_IN, load_model, model_card

__all__ = [
    "BUILT_IN",
    "SITES",
    "AuditConfig",
    "Circuit",
    "CompactCircuit",
    "EdgeCircuit",
    "EdgeConfig",
    "Hyper",
    "Job",
    "Model",
    "Output",
    "Pair",
    "Problem",
    "PruneConfig",
    "PruneRun",
    "Task",
    "Tokenizer",
    "TransformerConfig",
    "apply",
    "audit_circuit",
    "baseline",
    "compact",
    "count_edges",
    "default_hyper",
    "default_jobs",
    "edge_list",
    "evidence",
    "export_circuit",
    "find_baseline_circuit",
    "find_edge_circuit",
    "find_weight_circuit",
    "init_params",
    "load_circuit",
    "load_model",
    "make_problem",
    "model_card",
    "polish",
    "polish_edges",
    "prune",
    "run_pruning",
    "show",
    "tasks",
    "total_edges",
]
