"""Flags of a run: what has no meaning or cannot be is refused in one line, before a run begins."""

import functools
import json

import pytest
from absl import flags
from absl.testing import flagsaver

from circuitjax.prune.config import SYNONYMS, Hyper
from circuitjax.prune.defaults import PRESETS
from circuitjax.tasks import suite
from circuitjax.tasks.english import suite as english
from circuitjax.zoo.load import load_model
from experiments import pruning_flags
from tests.experiments.drive import drive

TASK = "--task=single_double_quote"
BAD = {
    "start of edges": (["--grain=edges", "--start=%s/none"], "holds no readable circuit"),
    "preset against grain": (["--preset=bhaskar2024", "--method=nodes"], "is of grain edges"),
    "two targets": (["--method=edges", "--target_kl=1", "--target_edges=3"], "choose one"),
    "two targets without conditions": (["--target_loss=1", "--target_kl=1"], "or say hold_under"),
    "confidence above 1": (["--confidence=1.5"], "confidence is 1.5; it must be in (0, 1)"),
    "confidence of a size": (
        ["--target_nodes=9", "--confidence=0.9", "--control=count"],
        "the target is a size: choose target_loss or target_kl",
    ),
    "too many edges": (["--method=edges", "--target_edges=999999"], "edges"),
    "negative kl": (["--target_kl=-1"], "target_kl is -1"),
    "no nodes": (["--target_nodes=0"], "--target_nodes=0 must be at least 1"),
    "sparsity without a lagrangian": (
        ["--method=weights", "--target_sparsity=0.5"],
        "target_sparsity has no meaning with control=hold",
    ),
    "k_coef of a lagrangian": (["--method=edges", "--k_coef=0.1"], "k_coef has no meaning"),
    "aim of a count": (
        ["--method=weights", "--control=count", "--aim=0.5"],
        "aim has no meaning with control=count",
    ),
    "temperature of hard concrete": (
        ["--method=edges", "--heaviside_temp=2"],
        "heaviside_temp has no meaning with gate=hard_concrete",
    ),
    "weight of a KL that is not minimised": (["--kl_weight=2"], "kl_weight has no meaning"),
    "two thresholds": (
        ["--method=edges", "--threshold=match_soft", "--target_kl=0.1"],
        "are both given",
    ),
    "match_soft of Heaviside gates": (["--threshold=match_soft"], "match_soft without"),
    "nothing to hold": (["--control=hold", "--target_nodes=9"], "control=hold without a loss"),
    "sparsity of one": (["--method=edges", "--target_sparsity=1"], "target_sparsity is 1"),
    "multiplier nan": (["--method=edges", "--multiplier_lr=nan"], "multiplier_lr is nan"),
    "jobs without end": (["--num_jobs=100000000"], "--num_jobs=100000000 must be at most 1000"),
    "seeds without end": (["--num_seeds=100000000"], "must be at most 1000"),
    "no jobs": (["--method=weights", "--num_jobs=0"], "--num_jobs=0"),
    "no start": (["--method=weights", "--start=nowhere"], "nowhere holds no readable circuit"),
    "init of 99": (["--init=99"], "init_noise_bias is 99"),
    "no training pairs": (["--train_pairs=0"], "train is 0"),
    "no test pairs": (["--test_pairs=-3"], "test is -3"),
    "node gates of nodes": (["--node_gates"], "gates on owners with grain nodes"),
    "tied edges": (["--grain=edges", "--tie_qk"], "tie_qk with grain edges"),
    "variance of edges": (["--method=edges", "--ranking=variance"], "only nodes have"),
    "calibrated vocabulary": (["--loss=vocabulary"], "choose calibrate=off"),
    "resample of one": (
        ["--ablation=resample", "--batch_size=1", "--task=%s/contrast.jsonl"],
        "one example a step",
    ),
    "steps of a ranking": (
        ["--ranking=attribution", "--steps=9"],
        "steps has no meaning with ranking=attribution",
    ),
    "lr of a ranking": (["--ranking=variance", "--lr=0.1"], "lr has no meaning"),
    "gate of a ranking": (["--ranking=variance", "--gate=heaviside"], "gate has no meaning"),
    "jobs of a ranking": (["--ranking=random", "--num_jobs=2"], "num_jobs has no meaning"),
    "seeds of a ranking": (
        ["--ranking=integrated", "--num_seeds=2"],
        "--num_seeds=2 has no meaning with ranking=integrated",
    ),
    "unknown": (["--task=io", "--grain=edges"], "did you mean ioi"),
    "English in a model of Python": (["--task=ioi"], "error: "),
    "lengths": (["--task=%s/lengths.jsonl"], "the clean prompt has"),
    "no right completion": (["--task=%s/empty.jsonl"], "the list 'right' is empty"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("cli")
    example = {"clean": "x = [a", "corrupted": "x = {a", "right": ["]\n"], "wrong": ["}\n"]}
    for name, changes in (
        ("contrast", {}),
        ("lengths", {"corrupted": "x = {a, b"}),
        ("empty", {"right": []}),
    ):
        (cwd / f"{name}.jsonl").write_text(json.dumps(example | changes))
    calls = []
    for given, _ in BAD.values():
        task = [] if any(one.startswith("--task") for one in given) else [TASK]
        calls.append([*task, *(one.replace("%s", str(cwd)) for one in given), f"--out={cwd}/out"])
    answers = drive("prune", calls, cwd)
    assert not (cwd / "out").exists()
    return dict(zip(BAD, answers, strict=True))


@pytest.mark.parametrize("case", BAD)
def test_bad_flags(results, case):
    code, out, err = results[case]
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert BAD[case][1] in lines[0]
    assert "Traceback" not in out + err


_model = functools.cache(load_model)


def build(tmp_path, task="for_while", **given):
    flags.FLAGS(["prune"])
    found = english.get(task) if task in english.names() else suite.get(task)
    with flagsaver.flagsaver(**given):
        return pruning_flags.build_run(_model("tiny-python"), found, tmp_path)


@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
@pytest.mark.parametrize("control", ["lagrangian", "count"])
def test_jobs_side_by_side_differ_in_what_the_control_reads(grain, control, tmp_path):
    """Three jobs are three target sparsities of a Lagrangian, three k_coef of a count."""
    run = build(tmp_path, grain=grain, control=control, gate="heaviside", num_jobs=3)
    sparsities = {float(job.hyper.target_sparsity) for job in run.jobs}
    coefficients = {float(job.hyper.k_coef) for job in run.jobs}
    assert len(run.jobs) == 3
    assert (len(sparsities), len(coefficients)) == ((3, 1) if control == "lagrangian" else (1, 3))


# Answers that the table of capabilities refuses for a grain, whatever else is asked for.
REFUSED = {
    *(
        (grain, f"eap_ig_{kind}")
        for grain in ("nodes", "weights")
        for kind in ("inputs", "activations")
    ),
    ("weights", "gim"),
    ("weights", "variance"),
    ("edges", "variance"),
    ("weights", "head"),
    ("weights", "block"),
}


@pytest.mark.parametrize("task", ["for_while", "ioi"])
@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
def test_every_answer_can_be_chosen(grain, task, tmp_path):
    """Each flag of the table reaches the search, for both kinds of tasks."""
    for name, known in pruning_flags.CHOICES.items():
        if name == "grain":
            continue
        for answer in known:
            more = {"calibrate": "off"} if answer == "vocabulary" else {}
            if answer == "eliminated":
                more["target_kl"] = 0.1
            if name in ("sign", "attribute_to"):
                more["ranking"] = "attribution"
            asked = {"grain": grain, name: answer, **more}
            if (grain, answer) in REFUSED:
                with pytest.raises(ValueError, match=" cannot be: "):
                    build(tmp_path, task, **asked)
                continue
            run = build(tmp_path, task, **asked)
            assert getattr(run.search.choices, name) == SYNONYMS.get(answer, answer)
            assert run.search.choices.grain == grain


def test_sizes_and_hyperparameters_reach_the_run(tmp_path):
    given = {"train_pairs": 30, "validation_pairs": 20, "test_pairs": 10, "batch_size": 4}
    hypers = {
        name: 0.25
        for name in Hyper().to_dict()
        if name not in ("held", "target_sparsity", "target_warmup_frac", "multiplier_lr", "aim")
    }
    run = build(tmp_path, minimise="both", **given, **hypers)
    assert (run.search.data.train, run.search.data.validation, run.search.data.test) == (30, 20, 10)
    (job,) = run.jobs
    assert {name: float(getattr(job.hyper, name)) for name in hypers} == hypers


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_it_pins(name, tmp_path):
    """Every value of the dictionary is found in the run, unless a flag says otherwise."""
    run = build(tmp_path, preset=name)
    pinned = dict(PRESETS[name])
    if "threshold" in pinned:
        assert run.search.selection.target == pinned.pop("threshold")
    for key, value in pinned.items():
        parts = (run.search.choices, run.search.train, run.search.selection, run.jobs[0].hyper)
        (found,) = [getattr(part, key) for part in parts if hasattr(part, key)]
        assert found == pytest.approx(value) if isinstance(value, float) else found == value
    run = build(tmp_path, preset=name, steps=7, target_loss=0.3)
    assert run.search.train.steps == 7
    assert (run.search.selection.target, run.search.selection.value) == ("loss", 0.3)
