"""Rows of a made-up suite, whose tables can be worked out by hand."""

RANDOM = [0.01, 0.02, 0.3]


def row(task, edges, **changes):
    """A finished cell; no edges means that it missed its target."""
    known = {
        "model": "sparse",
        "task": task,
        "grain": "nodes",
        "ranking": "learned",
        "target": 0.15,
        "seed": 0,
        "status": "reached" if edges else "not_reached",
        "nodes": 3,
        "edges": edges or 77,
        "nodes_total": 100,
        "edges_total": 1000,
        "loss_unpruned": 0.01,
        "loss_empty": 0.69,
        "loss_validation": 0.149,
        "loss_circuit": 0.1512345678,
        "loss_without_circuit": 1.5,
        "accuracy_circuit": 0.9,
        "kl_to_model": 2.5,
        "random_low": RANDOM[0],
        "random_median": RANDOM[1],
        "random_high": RANDOM[2],
        "random": RANDOM,
        "necessity_p": 0.005,
        "seconds_by_stage": {"training": 2.0},
        "note": "",
    }
    return known | changes


def suite_rows():
    """Two models at three targets, a second ranking at one, one task that is hard."""
    rows = []
    for target, factor in ((0.05, 4), (0.15, 1), (0.5, 0.5)):
        for model, more in (("sparse", 1), ("dense", 10)):
            edges = {"easy": 8, "middle": 18, "hard": 600 if target > 0.1 else None}
            rows += [
                row(task, count and count * factor * more, model=model, target=target)
                for task, count in edges.items()
            ]
    rows += [
        row("easy", 80, ranking="attribution"),
        row("middle", None, ranking="attribution"),
        row("hard", 60_000, ranking="attribution"),
    ]
    return rows
