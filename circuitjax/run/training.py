"""Training that is kept on disk from chunk to chunk, and goes on where it stopped."""

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from circuitjax.core import checkpoints
from circuitjax.prune.train import MaskState, OnChunk

__all__ = ["History", "Progress", "train_in"]

Progress = Callable[[int, Mapping[str, np.ndarray]], None]
History = dict[str, np.ndarray]


def train_in(
    folder: pathlib.Path,
    state: MaskState,
    history: History,
    train: Callable[[MaskState, OnChunk], MaskState],
    progress: Progress = lambda step, metrics: None,
) -> tuple[MaskState, History]:
    """Trains, or goes on training, and keeps the last chunk's state on disk.

    Args:
      folder: of the checkpoints.
      state: J jobs before their first step.
      history: metrics to keep, each `[J, steps]`; {} keeps none.
      train: runs what is left, and reports every chunk.
      progress: called with (steps done, metrics `[J, chunk]`).

    Returns:
      The trained state and the filled history.

    Raises:
      ValueError: a checkpoint that was cut or changed; the line says what to remove.
    """
    done = checkpoints.latest_step(folder)
    if done is not None:
        try:
            saved = checkpoints.load_step(folder, done, {"state": state, "history": history})
        except ValueError as error:
            raise ValueError(
                f"{error}: remove {folder}, and the same command trains anew"
            ) from error
        state, history = jax.device_put(saved["state"]), saved["history"]
        last = slice(max(done - 1, 0), done)
        progress(done, {name: values[:, last] for name, values in history.items()})

    def on_chunk(state: MaskState, metrics: Mapping[str, np.ndarray]) -> None:
        step = int(state.step[0])
        for name in history:
            values = metrics[name]
            history[name][:, step - values.shape[1] : step] = values
        checkpoints.save_step(folder, step, {"state": state, "history": history}, keep=1)
        progress(step, metrics)

    return train(state, on_chunk), history
