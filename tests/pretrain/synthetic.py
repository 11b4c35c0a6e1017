"""A small learnable corpus folder: every document counts on from a random token."""

import json
import pathlib

import numpy as np

from circuitjax.pretrain.packing import BOS, SOURCES, SPLITS, stream_files

PERIOD = 12


def write_corpus(root: pathlib.Path) -> pathlib.Path:
    """Writes the folder and returns it; both sources and splits, about 2,000 tokens each."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (source, split) in enumerate((a, b) for a in SOURCES for b in SPLITS):
        rng = np.random.default_rng(number)
        documents = [
            np.concatenate([[BOS], (rng.integers(PERIOD) + np.arange(19)) % PERIOD])
            for _ in range(100)
        ]
        tokens, starts = stream_files(source, split)
        np.save(root / tokens, np.concatenate(documents).astype(np.uint16))
        np.save(root / starts, np.arange(100, dtype=np.int64) * 20)
    (root / "manifest.json").write_text(json.dumps({"made": "for a test"}))
    return root
