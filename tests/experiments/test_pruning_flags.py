"""Flags of the other methods: what has no meaning is refused in one line, before a run begins."""

import pytest
from absl import flags
from absl.testing import flagsaver

import circuitjax as cj
from experiments import pruning_flags
from tests.experiments.drive import drive

TASK = "--task=single_double_quote"
BAD = {
    "start of edges": (["--method=edges", "--start=x"], "--start has no meaning"),
    "preset against method": (["--preset=bhaskar2024", "--method=nodes"], "is of method edges"),
    "two targets": (["--method=edges", "--target_kl=1", "--target_edges=3"], "choose one"),
    "interchange of nodes": (["--ablation=interchange"], "is for --method=edges"),
    "kl of nodes": (["--target_kl=0.1"], "--target_kl has no meaning"),
    "too many edges": (["--method=edges", "--target_edges=999999"], "edges can matter"),
    "negative kl": (["--method=edges", "--target_kl=-1"], "target_kl is -1"),
    "sparsity without a lagrangian": (
        ["--method=weights", "--target_sparsity=0.5"],
        "target_sparsity has no meaning with --control=hold",
    ),
    "k_coef of a lagrangian": (["--method=edges", "--k_coef=0.1"], "k_coef has no meaning"),
    "aim of a count": (
        ["--method=weights", "--control=count", "--aim=0.5"],
        "aim has no meaning with --control=count",
    ),
    "temperature of hard concrete": (
        ["--method=edges", "--heaviside_temp=2"],
        "heaviside_temp has no meaning with --gate=hard_concrete",
    ),
    "two thresholds": (
        ["--method=edges", "--threshold=match_soft", "--target_kl=0.1"],
        "threshold=match_soft and --target_kl are both given",
    ),
    "sparsity of one": (["--method=edges", "--target_sparsity=1"], "target_sparsity is 1"),
    "multiplier nan": (["--method=edges", "--multiplier_lr=nan"], "multiplier_lr is nan"),
    "no jobs": (["--method=weights", "--num_jobs=0"], "--num_jobs=0"),
    "no start": (["--method=weights", "--start=nowhere"], "nowhere holds no readable circuit"),
    "hard nodes": (["--gate=hard_concrete"], "leave both out"),
    "init of nodes": (["--init=1"], "--init has no meaning"),
    "after of edges": (["--method=edges", "--calibrate=after"], "choose inside or off"),
    "ranking of edges": (
        ["--method=edges", "--ranking=random"],
        "--ranking=random is for --method=nodes, not edges",
    ),
    "steps of a ranking": (
        ["--ranking=attribution", "--steps=9"],
        "--steps has no meaning with --ranking=attribution",
    ),
    "lr of a ranking": (["--ranking=variance", "--lr=0.1"], "--lr has no meaning"),
    "gate of a ranking": (["--ranking=variance", "--gate=heaviside"], "--gate has no meaning"),
    "jobs of a ranking": (["--ranking=random", "--num_jobs=2"], "--num_jobs has no meaning"),
    "seeds of a ranking": (
        ["--ranking=integrated", "--num_seeds=2"],
        "--num_seeds=2 has no meaning with --ranking=integrated",
    ),
}
OTHER = {
    "english nodes": (["--task=ioi"], "use --method=edges"),
    "split names": (["--task=ioi", "--method=edges"], "error: "),
    "unknown": (["--task=io", "--method=edges"], "did you mean ioi"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("cli")
    calls = [[TASK, *flags] for flags, _ in BAD.values()] + [flags for flags, _ in OTHER.values()]
    answers = drive("prune", [[*call, f"--out={cwd}/out"] for call in calls], cwd)
    assert not (cwd / "out").exists()
    return dict(zip([*BAD, *OTHER], answers, strict=True))


@pytest.mark.parametrize("case", [*BAD, *OTHER])
def test_bad_flags(results, case):
    code, out, err = results[case]
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert (BAD | OTHER)[case][1] in lines[0]
    assert "Traceback" not in out + err


@pytest.mark.parametrize("method", ["weights", "edges"])
@pytest.mark.parametrize("control", ["lagrangian", "count"])
def test_jobs_side_by_side_differ_in_what_the_control_reads(method, control, tmp_path):
    """Three jobs are three target sparsities of a Lagrangian, three k_coef of a count."""
    flags.FLAGS(["prune"])
    model, task = cj.load_model("tiny-python"), cj.tasks.get("for_while")
    with flagsaver.flagsaver(method=method, control=control, gate="heaviside", num_jobs=3):
        run = pruning_flags.build_run(model, task, tmp_path)
    sparsities = {float(job.hyper.target_sparsity) for job in run.jobs}
    coefficients = {float(job.hyper.k_coef) for job in run.jobs}
    assert len(run.jobs) == 3
    assert (len(sparsities), len(coefficients)) == ((3, 1) if control == "lagrangian" else (1, 3))
