"""The figures of a made-up audit, for tests of what is concluded from them."""

import dataclasses
import math

from circuitjax.audit.record import (
    FORMAT,
    Agreement,
    AuditFigures,
    Baseline,
    EffectFigures,
    Evidence,
    Hypothesis,
    Minimality,
    PolishFigures,
    RunFigures,
    Stability,
    Sufficiency,
    SupersetFigures,
    Template,
)

EVIDENCE = Evidence(
    loss_circuit=0.14,
    loss_circuit_uncalibrated=0.5,
    accuracy_circuit=1.0,
    loss_without_circuit=0.7,
    loss_without_random=[0.1],
    necessity_percentile=1.0,
    correlation=0.9,
    correlation_within=0.8,
    kl_to_model=0.1,
    argmax_agreement=0.95,
    intervals={"loss_circuit": (0.13, 0.16), "kl_to_model": (0.05, 0.2)},
    necessity=Hypothesis("necessity", "", 0.7, 0.005, 0.0, 0.02, 200, 0),
)
BASE = Baseline(loss_unpruned=0.01, loss_empty=0.69, kl_empty=2.0, accuracy_unpruned=1.0)
FIGURES = {**vars(BASE), **vars(EVIDENCE)}
TESTS = [
    dataclasses.replace(EVIDENCE.necessity, adjusted=0.01),
    Hypothesis("equivalence", "", 0.5, 0.9, None, None, 40, 20, 0.9),
    Hypothesis("independence", "", 0.01, 0.3, 0.2, 0.4, 60, 20, 0.4),
]
RUN = RunFigures("task", 0, 10, 12, 10, True, 0.14, 0.15)
POLISH = PolishFigures(
    nodes_before=10,
    nodes_after=8,
    edges_before=12,
    edges_after=9,
    size_before=10,
    size_after=8,
    loss_validation_before=0.14,
    loss_validation_after=0.15,
    loss_test_before=0.14,
    loss_test_after=0.15,
    target=0.15,
    reached=True,
    finished=True,
    removed=["a", "b"],
)
AUDIT = AuditFigures(
    format=FORMAT,
    model="m",
    model_hash="0",
    task="t",
    grain="nodes",
    ablation="mean",
    paired=True,
    unit="nodes",
    measure="calibrated",
    target=0.15,
    chance=math.log(2),
    nodes=10,
    nodes_total=1000,
    edges=12,
    edges_total=5000,
    size=10,
    size_total=1000,
    own_size=10.0,
    baseline=BASE,
    evidence=EVIDENCE,
    sufficiency={"zero": {"free": Sufficiency(0.2, 0.3), "frozen": Sufficiency(0.6, 0.7)}},
    templates={"a": Template(0.1, 3), "b": Template(0.5, 4)},
    agreement=Agreement({"0.h0": 0.1}, 0.1, [None, 0.2]),
    effects=EffectFigures(0.14, 0.0, None, 0, 0, {"x": 0.1}, [("x", "y", 0.1)]),
    polish=POLISH,
    supersets=SupersetFigures(
        [0.0, 0.5, 1.0], [[0.1], [0.2, 0.4], [0.01]], 0.69, 0.5, "search", [[0.1]]
    ),
    runs=[
        RUN,
        dataclasses.replace(RUN, world="nonsense", nodes=15, size=15),
        dataclasses.replace(RUN, world="shuffled", reached=False),
    ],
    worlds={},
    stability=Stability([0, 1], 0.2, [[1.0]], 0.3, 5, 0.5, 4, 0.1),
    skipped={"weights": "why not", "templates": "one template"},
    seconds={"data": 1.0},
    settings={},
    checks=[],
    tests=TESTS,
    minimality=Minimality(5, 10, 100, 0.95, 0.9, 0.99, 0.1, {"x": 0.01}),
)
