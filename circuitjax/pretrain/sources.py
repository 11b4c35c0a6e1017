"""Real Python from pinned sources: fetched, stripped, de-duplicated, shuffled.

Sources are the standard library of the running interpreter and pure Python wheels of permissively
licensed packages, by name and version. No source may give more than its share, so that none sets
the tone.
"""

import dataclasses
import hashlib
import multiprocessing
import pathlib
import platform
import random
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

from circuitjax.pretrain import bpe, clean

__all__ = ["PACKAGES", "STANDARD_LIBRARY", "Package", "Report", "collect_code", "fetch"]

Report = Callable[[str], None]

STANDARD_LIBRARY = "python-standard-library"
_SKIPPED_PARTS = frozenset(
    [
        "site-packages",
        "__pycache__",
        "_vendor",
        "_vendored",
        "vendor",
        "vendored",
        "vendored_packages",
        "encodings",
        "typeshed",
        "locale",
        "lib2to3",
        "_distutils",
    ]
)
_LARGEST_FILE = 200_000


@dataclasses.dataclass(frozen=True)
class Package:
    """A pinned pure-Python package.

    Attributes:
        name: as the package index spells it.
        version: exact version.
        licence: SPDX expression, as its metadata states.
    """

    name: str
    version: str
    licence: str


PACKAGES: tuple[Package, ...] = (
    Package("sympy", "1.14.0", "BSD-3-Clause"),
    Package("Django", "5.2.19", "BSD-3-Clause"),
    Package("networkx", "3.6.1", "BSD-3-Clause"),
    Package("Twisted", "26.10.0", "MIT"),
    Package("wagtail", "8.0.1", "BSD-3-Clause"),
    Package("xarray", "2026.9.0", "Apache-2.0"),
    Package("dask", "2026.8.0", "BSD-3-Clause"),
    Package("distributed", "2026.8.0", "BSD-3-Clause"),
    Package("nltk", "3.10.4", "Apache-2.0"),
    Package("Pygments", "2.21.0", "BSD-2-Clause"),
    Package("Sphinx", "9.0.4", "BSD-2-Clause"),
    Package("mpmath", "1.4.1", "BSD-3-Clause"),
    Package("ipython", "9.18.1", "BSD-3-Clause"),
    Package("setuptools", "84.2.1", "MIT"),
    Package("celery", "5.7.0", "BSD-3-Clause"),
    Package("pydantic", "2.14.3", "MIT"),
    Package("trio", "0.35.0", "MIT OR Apache-2.0"),
    Package("pytest", "9.2.0", "MIT"),
    Package("rich", "15.0.0", "MIT"),
    Package("Scrapy", "2.19.0", "BSD-3-Clause"),
    Package("kombu", "5.7.0", "BSD-3-Clause"),
    Package("fastapi", "0.165.0", "MIT"),
    Package("fsspec", "2026.9.0", "BSD-3-Clause"),
    Package("Werkzeug", "3.1.9", "BSD-3-Clause"),
    Package("djangorestframework", "3.18.3", "BSD-3-Clause"),
    Package("Jinja2", "3.1.6", "BSD-3-Clause"),
    Package("click", "8.5.1", "BSD-3-Clause"),
    Package("urllib3", "2.8.0", "MIT"),
    Package("beautifulsoup4", "4.15.0", "MIT"),
    Package("Markdown", "3.11.3", "BSD-3-Clause"),
    Package("Flask", "3.1.3", "BSD-3-Clause"),
    Package("httpx", "0.28.1", "BSD-3-Clause"),
    Package("starlette", "1.10.0", "BSD-3-Clause"),
    Package("requests", "2.34.2", "Apache-2.0"),
    Package("attrs", "26.1.0", "MIT"),
    Package("sqlparse", "0.6.1", "BSD-3-Clause"),
)


def fetch(package: Package, directory: pathlib.Path) -> pathlib.Path:
    """Return the wheel of a package, downloaded into the directory if it is not there yet.

    Raises:
        ValueError: if the package index does not give it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = _wheel(package, directory)
    if found is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(directory)]
        command.append(f"{package.name}=={package.version}")
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        found = _wheel(package, directory)
        if found is None:
            said = (outcome.stderr.strip().splitlines() or ["no word from pip"])[-1]
            raise ValueError(
                f"cannot download {package.name} {package.version} to {directory}: {said}; "
                "check the network, or put the wheel there"
            )
    return found


def _wheel(package: Package, directory: pathlib.Path) -> pathlib.Path | None:
    wanted = f"{package.name.lower().replace('-', '_')}-{package.version}-"
    for path in sorted(directory.glob("*.whl")):
        if path.name.lower().startswith(wanted):
            return path
    return None


def _wheel_files(path: pathlib.Path) -> list[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        entries = sorted(
            (entry for entry in archive.infolist() if _wanted(entry.filename, entry.file_size)),
            key=lambda entry: entry.filename,
        )
        decoded = [(entry.filename, _decode(archive.read(entry))) for entry in entries]
    return [(name, text) for name, text in decoded if text is not None]


def _library_files(root: pathlib.Path) -> list[tuple[str, str]]:
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if _wanted(name, path.stat().st_size):
            text = _decode(path.read_bytes())
            if text is not None:
                found.append((name, text))
    return found


def _wanted(name: str, size: int) -> bool:
    parts = pathlib.PurePosixPath(name).parts
    return name.endswith(".py") and 0 < size <= _LARGEST_FILE and _SKIPPED_PARTS.isdisjoint(parts)


def _decode(raw: bytes) -> str | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if bpe.END_OF_TEXT in text else text


def _usable(text: str | None) -> bool:
    """Return whether a stripped file is code to learn from, and no table of data."""
    if text is None or len(text) < 200:
        return False
    digits = sum(map(text.count, "0123456789"))
    letters = max(map(len, text.split("\n")))
    return digits < 0.2 * len(text) and letters < 1000


def _strip_source(job: tuple[str, str, str, int, int]) -> tuple[list[str], dict[str, object]]:
    """Return the stripped documents of one source, at most `budget` characters, and its record."""
    name, origin, kind, seed, budget = job
    path = pathlib.Path(origin)
    files = _wheel_files(path) if kind == "wheel" else _library_files(path)
    random.Random(f"{seed}:{name}").shuffle(files)
    digest = hashlib.sha256()
    documents: list[str] = []
    total = raw = used = 0
    for file_name, text in files:
        if total >= budget:
            break
        digest.update(file_name.encode() + b"\0" + text.encode() + b"\0")
        used += 1
        raw += len(text.encode())
        stripped = clean.strip_source(text)
        if stripped is not None and _usable(stripped):
            documents.append(stripped)
            total += len(stripped)
    record: dict[str, object] = {
        "files_read": used,
        "files_kept": len(documents),
        "bytes_read": raw,
        "characters_kept": total,
        "sha256_of_texts_read": digest.hexdigest(),
    }
    if kind == "wheel":
        record["wheel"] = path.name
        record["wheel_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return documents, record


def collect_code(
    megabytes: float,
    seed: int,
    download_directory: pathlib.Path,
    report: Report,
    packages: Sequence[Package] = PACKAGES,
    library: pathlib.Path | None = None,
) -> tuple[list[str], list[dict[str, object]]]:
    """Fetch, strip, de-duplicate and shuffle the real source.

    No package gives more than a tenth of the wanted size, the standard library no more than a
    quarter.

    Args:
        megabytes: how much to keep after stripping, 10^6 characters.
        seed: of the choice of files and their order.
        download_directory: where wheels are kept.
        report: told one line now and then.
        packages: what to fetch.
        library: the standard library's folder; the running interpreter's by default.

    Returns:
        `(documents, records)`, one record a source.

    Raises:
        ValueError: if a package cannot be had, or all sources together are too small.
    """
    wanted = int(megabytes * 1e6)
    root = library or pathlib.Path(sysconfig.get_paths()["stdlib"])
    jobs = [(STANDARD_LIBRARY, str(root), "library", seed, wanted // 4)]
    heads: list[dict[str, object]] = [
        {"name": STANDARD_LIBRARY, "version": platform.python_version(), "licence": "PSF-2.0"}
    ]
    for package in packages:
        wheel = fetch(package, download_directory)
        jobs.append((package.name, str(wheel), "wheel", seed, wanted // 10))
        heads.append(dataclasses.asdict(package))
    report(f"{len(jobs)} sources at hand; stripping docstrings and comments")
    documents: list[str] = []
    # Not forked: JAX may be running threads in this process.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for head, (texts, record) in zip(heads, pool.map(_strip_source, jobs), strict=True):
            head.update(record)
            documents += texts
    random.Random(f"{seed}:code").shuffle(documents)
    seen = clean.Deduplicator()
    kept: list[str] = []
    total = 0
    for text in documents:
        if total >= wanted:
            break
        if seen.is_new(text):
            kept.append(text)
            total += len(text)
    report(f"code: {total / 1e6:.1f} MB in {len(kept)} of {len(documents)} documents")
    if total < 0.8 * wanted:
        raise ValueError(
            f"the sources hold {total / 1e6:.1f} MB, {megabytes} were asked for: "
            "lower --code_megabytes or add packages"
        )
    return kept, heads
