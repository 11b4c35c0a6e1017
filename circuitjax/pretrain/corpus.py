"""Building the pretraining corpus: real Python and generated idioms, as token streams in a folder.

    sources: fetch -> strip -> de-duplicate -> shuffle -> split -.
                                                                 |-> tokenizer -> streams
    seed:    idioms ----------> de-duplicate -----------> split -'

Every choice follows from the seed; the manifest names every source with its licence and hash.
"""

import dataclasses
import hashlib
import io
import json
import multiprocessing
import pathlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata

import numpy as np
from tokenizers import Tokenizer

from circuitjax.core.files import read_object, write_bytes
from circuitjax.pretrain import bpe, idioms, packing
from circuitjax.pretrain.sources import PACKAGES, Package, Report, collect_code

__all__ = ["CorpusConfig", "build", "collect_idioms", "encode_documents", "finished_config"]

_GROUP = 256  # Documents that are tokenised as one text.


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """What determines a corpus, besides the sources themselves.

    Attributes:
        code_megabytes: real source after stripping, 10^6 characters, > 0.
        idiom_megabytes: generated text, 10^6 characters, > 0.
        seed: of every shuffle and of the idioms, >= 0.
        validation_fraction: share of documents held out, in (0, 0.5].
        tokenizer_code_megabytes: real source that the tokenizer is trained on, at most.
        tokenizer_idiom_megabytes: generated text that the tokenizer is trained on, at most.
        tokenizer_sha256: "" to train one, or the hash of the given one.
    """

    code_megabytes: float = 40.0
    idiom_megabytes: float = 80.0
    seed: int = 0
    validation_fraction: float = 0.01
    tokenizer_code_megabytes: float = 8.0
    tokenizer_idiom_megabytes: float = 24.0
    tokenizer_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            ValueError: naming the value and its limit.
        """
        for name in ("code_megabytes", "idiom_megabytes"):
            value = getattr(self, name)
            if not 0.0 < value <= 10_000.0:
                raise ValueError(f"{name} {value} must lie in (0, 10000]: name a size in megabytes")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative: take 0 or more")
        if not 0.0 < self.validation_fraction <= 0.5:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} must lie in (0, 0.5]: "
                "0.01 is usual"
            )


def _make_idioms(job: tuple[int, int, int]) -> list[str]:
    seed, start, count = job
    return list(idioms.documents(seed, count, start))


def collect_idioms(config: CorpusConfig, report: Report) -> list[str]:
    """Generate the idiom documents, without exact repetitions.

    Returns:
        Documents in the order of their numbers, `idiom_megabytes` in all within some percent.
    """
    sample = _make_idioms((config.seed, 0, 2000))
    mean = sum(map(len, sample)) / len(sample)
    count = max(200, int(config.idiom_megabytes * 1e6 / mean))
    piece = max(1000, min(50_000, count // 4))
    jobs = [(config.seed, start, min(piece, count - start)) for start in range(0, count, piece)]
    unique: dict[str, None] = {}
    # Not forked: JAX may be running threads in this process.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for texts in pool.map(_make_idioms, jobs):
            unique.update(dict.fromkeys(texts))
    total = sum(map(len, unique))
    report(f"idioms: {total / 1e6:.1f} MB in {len(unique)} of {count} documents")
    return list(unique)


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokenise documents into one stream, each preceded by the special token.

    Args:
        tokenizer: as `bpe.train` returns it.
        documents: at least one.

    Returns:
        `(tokens [n] uint16, starts [documents] int64)`.

    Raises:
        ValueError: if there is no document, or one holds the special token's text.
    """
    if not documents:
        raise ValueError("no documents to tokenise: ask for a larger corpus")
    pieces: list[np.ndarray] = []
    for texts in _groups(documents, _GROUP * 16):
        joined = [bpe.END_OF_TEXT + bpe.END_OF_TEXT.join(part) for part in _groups(texts, _GROUP)]
        pieces += [
            np.asarray(found.ids, np.uint16) for found in tokenizer.encode_batch_fast(joined)
        ]
    tokens = np.concatenate(pieces)
    starts = np.flatnonzero(tokens == packing.BOS).astype(np.int64)
    if len(starts) != len(documents):
        raise ValueError(
            f"{len(documents)} documents gave {len(starts)} starts: one holds {bpe.END_OF_TEXT!r}; "
            "leave it out"
        )
    return tokens, starts


def _groups(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def finished_config(directory: pathlib.Path) -> dict[str, object] | None:
    """Return the config that a finished corpus folder was built with, or None if there is none."""
    path = directory / "manifest.json"
    if not path.is_file():
        return None
    found = read_object(path).get("config")
    return dict(found) if isinstance(found, dict) else None


def build(
    config: CorpusConfig,
    directory: pathlib.Path,
    download_directory: pathlib.Path,
    report: Report,
    tokenizer: Tokenizer | None = None,
    packages: Sequence[Package] = PACKAGES,
    library: pathlib.Path | None = None,
) -> dict[str, object]:
    """Build a whole corpus folder: streams, tokenizer, and last of all the manifest.

    Args:
        config: sizes and seeds.
        directory: where to write; made if absent. Files of the same names are replaced.
        download_directory: where wheels are kept.
        report: told one line now and then.
        tokenizer: one to use as it is; trained on the corpus itself if None.
        packages: real sources.
        library: folder of the standard library; the running interpreter's by default.

    Returns:
        The manifest.

    Raises:
        ValueError: as `collect_code`, `bpe.train`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").unlink(missing_ok=True)  # Its presence says that all is there.
    code, sources = collect_code(
        config.code_megabytes, config.seed, download_directory, report, packages, library
    )
    generated = collect_idioms(config, report)
    splits: dict[tuple[str, str], list[str]] = {}
    for source, texts in (("idioms", generated), ("code", code)):
        held = max(1, round(len(texts) * config.validation_fraction))
        splits[source, "validation"], splits[source, "train"] = texts[:held], texts[held:]
    if tokenizer is None:
        report("training the tokenizer")
        tokenizer = bpe.train(_tokenizer_texts(config, splits))
    bpe.save(tokenizer, directory / "tokenizer.json")
    counts: dict[str, object] = {}
    for source in packing.SOURCES:
        for split in packing.SPLITS:
            texts = splits[source, split]
            tokens, starts = encode_documents(tokenizer, texts)
            for name, array in zip(
                packing.stream_files(source, split), (tokens, starts), strict=True
            ):
                _save_array(directory / name, array)
            characters = sum(map(len, texts))
            counts[f"{source}_{split}"] = {
                "documents": len(starts),
                "tokens": len(tokens),
                "characters": characters,
                "tokens_per_character": round((len(tokens) - len(starts)) / characters, 4),
                "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
            }
            report(f"{source} {split}: {len(tokens)} tokens in {len(starts)} documents")
    manifest: dict[str, object] = {
        "config": dataclasses.asdict(config),
        "counts": counts,
        "sources": sources,
        "tokenizer_sha256": _hash_file(directory / "tokenizer.json"),
        "not_one_token": list(bpe.missing(tokenizer)),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "tokenizers")},
        },
    }
    _save_text(directory / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def _tokenizer_texts(
    config: CorpusConfig, splits: dict[tuple[str, str], list[str]]
) -> Iterable[str]:
    for source, megabytes in (
        ("code", config.tokenizer_code_megabytes),
        ("idioms", config.tokenizer_idiom_megabytes),
    ):
        left = megabytes * 1e6
        for text in splits[source, "train"]:
            if left <= 0:
                break
            left -= len(text)
            yield text


def _hash_file(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _save_array(path: pathlib.Path, array: np.ndarray) -> None:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    write_bytes(path, written.getbuffer())


def _save_text(path: pathlib.Path, text: str) -> None:
    write_bytes(path, text.encode())
