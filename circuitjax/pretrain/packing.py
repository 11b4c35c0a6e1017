"""The pretraining corpus as memory-mapped token streams, and a sampler that is a pure function.

A corpus folder holds two sources, `idioms` (generated) and `code` (real Python), each with a train
and a validation stream. A stream is a flat uint16 array in which every document is preceded by the
token `BOS` (2047); `*_starts.npy` lists where documents start. A batch is a function of
(seed, step) alone:

    row b of step s = stream[start : start + T + 1],   start ~ Philox(SeedSequence([seed, s]))

so a resumed run sees the very batches of an uninterrupted one, whatever was drawn before, and two
processes can build the same batch without talking to each other.

- An idiom row begins at a document start, hence with BOS, and runs on through those after it.
- A code row is BOS followed by T tokens from any position of the stream: a real file is longer
  than the context, and a model that saw only beginnings of files would learn import statements.

Axis letters: B sequences, T positions.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from circuitjax.core.files import read_object, reason

__all__ = ["BOS", "SOURCES", "SPLITS", "VOCABULARY", "Corpus", "stream_files"]

BOS = 2047
VOCABULARY = 2048
SOURCES = ("idioms", "code")
SPLITS = ("train", "validation")
# The last word of the seed sequence: fixed validation rows share no random stream with training.
_TRAIN_STREAM = 0
_VALIDATION_STREAM = 1


def stream_files(source: str, split: str) -> tuple[str, str]:
    """Return the file names (tokens, document starts) of one stream of a corpus folder."""
    return f"{source}_{split}.npy", f"{source}_{split}_starts.npy"


@dataclasses.dataclass(frozen=True)
class _Stream:
    """One flat token stream.

    Attributes:
        tokens: `[n]` uint16, memory-mapped.
        starts: `[documents]` int64, positions of the BOS tokens, ascending.
    """

    tokens: np.ndarray
    starts: np.ndarray


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A finished corpus folder, opened for reading.

    Attributes:
        directory: where it lies.
        manifest: the parsed manifest.json.
        streams: `((source, split), stream)` pairs.
    """

    directory: pathlib.Path
    manifest: dict[str, object]
    streams: tuple[tuple[tuple[str, str], _Stream], ...]

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> "Corpus":
        """Open a corpus folder without reading the streams into memory.

        Args:
            directory: folder written by `experiments.corpus`.

        Returns:
            The corpus, its arrays memory-mapped read-only.

        Raises:
            ValueError: if a file is missing or is not a token stream.
        """
        root = pathlib.Path(directory)
        manifest_path = root / "manifest.json"
        if not manifest_path.is_file():
            raise ValueError(
                f"{root} is no finished corpus: manifest.json is missing; "
                "build one with `python -m experiments.corpus --out=...`"
            )
        manifest = read_object(manifest_path)
        streams = []
        for source in SOURCES:
            for split in SPLITS:
                tokens_name, starts_name = stream_files(source, split)
                tokens = _load(root / tokens_name, np.uint16)
                starts = _load(root / starts_name, np.int64)
                if not len(starts) or starts[0] != 0 or starts[-1] >= len(tokens):
                    raise ValueError(
                        f"{root / starts_name} does not belong to {tokens_name} "
                        f"({len(tokens)} tokens): rebuild the corpus with --overwrite"
                    )
                streams.append(((source, split), _Stream(tokens, starts)))
        return cls(root, manifest, tuple(streams))

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of all streams: corpora that give every step the same batch."""
        found = hashlib.sha256()
        for key, stream in self.streams:
            found.update(f"{key} {len(stream.tokens)} {len(stream.starts)}".encode())
            found.update(np.ascontiguousarray(stream.tokens).data)
            found.update(np.ascontiguousarray(stream.starts).data)
        return found.hexdigest()

    def stream(self, source: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return `(tokens [n] uint16, starts [documents] int64)` of one stream.

        Args:
            source: "idioms" or "code".
            split: "train" or "validation".

        Raises:
            ValueError: for an unknown source or split.
        """
        found = self._find(source, split)
        return found.tokens, found.starts

    def batch(
        self,
        step: int,
        batch_size: int,
        length: int,
        seed: int,
        idiom_fraction: float = 0.75,
    ) -> np.ndarray:
        """Draw the training batch of one step; the same arguments give the same batch, always.

        Args:
            step: number of the step, >= 0.
            batch_size: B.
            length: T, number of predicted positions.
            seed: seed of the run, >= 0.
            idiom_fraction: share of idiom rows in [0, 1]; `round(B * fraction)` rows, which stand
            first.

        Returns:
            Tokens `[B, T + 1]`, int32: inputs are `[:, :-1]`, targets `[:, 1:]`.

        Raises:
            ValueError: for numbers out of range, or a stream shorter than a row.
        """
        rng = _generator(seed, step, _TRAIN_STREAM)
        return self._draw(rng, "train", batch_size, length, idiom_fraction)

    def validation(
        self, batch_size: int, length: int, idiom_fraction: float = 0.75, index: int = 0
    ) -> np.ndarray:
        """Return fixed held-out rows: the same for every run, step and seed.

        Args:
            batch_size: B.
            length: T.
            idiom_fraction: share of idiom rows; 1.0 or 0.0 look at one source alone.
            index: number of the fixed batch, >= 0, for several disjointly drawn batches.

        Returns:
            Tokens `[B, T + 1]`, int32, from the validation documents only.

        Raises:
            ValueError: as `batch`.
        """
        rng = _generator(0, index, _VALIDATION_STREAM)
        return self._draw(rng, "validation", batch_size, length, idiom_fraction)

    def _find(self, source: str, split: str) -> _Stream:
        for key, found in self.streams:
            if key == (source, split):
                return found
        raise ValueError(
            f"no stream ({source!r}, {split!r}): the source is one of {SOURCES}, "
            f"the split of {SPLITS}"
        )

    def _draw(
        self,
        rng: np.random.Generator,
        split: str,
        batch_size: int,
        length: int,
        idiom_fraction: float,
    ) -> np.ndarray:
        if batch_size < 1 or length < 1:
            raise ValueError(
                f"batch_size {batch_size} and length {length} must be at least 1: ask for a row"
            )
        if not 0.0 <= idiom_fraction <= 1.0:
            raise ValueError(f"idiom_fraction {idiom_fraction} must lie in [0, 1]")
        idiom_rows = round(batch_size * idiom_fraction)
        rows = np.empty((batch_size, length + 1), np.int32)
        # Both sources draw for all B rows, so the idiom rows of a step do not hang on the fraction.
        picks = rng.random((2, batch_size))
        if idiom_rows:
            idioms = self._find("idioms", split)
            for row, start in enumerate(_document_starts(idioms, length, picks[0, :idiom_rows])):
                rows[row] = idioms.tokens[start : start + length + 1]
        if idiom_rows < batch_size:
            code = self._find("code", split)
            room = len(code.tokens) - length
            if room < 1:
                raise ValueError(_too_short("code", split, len(code.tokens), length))
            for row in range(idiom_rows, batch_size):
                start = int(picks[1, row] * room)
                rows[row, 0] = BOS
                rows[row, 1:] = code.tokens[start : start + length]
        return rows


def _document_starts(stream: _Stream, length: int, picks: np.ndarray) -> np.ndarray:
    """Map uniform numbers `[B]` in [0, 1) to document starts that leave room for a whole row."""
    usable = int(np.searchsorted(stream.starts, len(stream.tokens) - length, side="left"))
    if not usable:
        raise ValueError(_too_short("idioms", "?", len(stream.tokens), length))
    return stream.starts[(picks * usable).astype(np.int64)]


def _too_short(source: str, split: str, tokens: int, length: int) -> str:
    return (
        f"length {length} does not fit the {source} {split} stream of {tokens} tokens: "
        "take a shorter length or build a larger corpus"
    )


def _generator(seed: int, step: int, stream: int) -> np.random.Generator:
    if seed < 0 or step < 0:
        raise ValueError(f"seed {seed} and step {step} must not be negative: count from 0")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, stream])))


def _load(path: pathlib.Path, dtype: type[np.generic]) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"{path} is missing: rebuild the corpus with --overwrite")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises many kinds, some of Python's own parser
        raise ValueError(
            f"{path} is no token stream ({reason(error)}): rebuild the corpus with --overwrite"
        ) from None
    if array.ndim != 1 or array.dtype != dtype:
        raise ValueError(
            f"{path} holds {array.dtype} of rank {array.ndim}, not a flat {np.dtype(dtype)} "
            "stream: rebuild the corpus with --overwrite"
        )
    return array
