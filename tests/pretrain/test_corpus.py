"""Laws of building a corpus: meaning is kept, splits share nothing, the seed decides."""

import ast
import json
import pathlib
import sysconfig
import zipfile

import numpy as np
import pytest

from circuitjax.pretrain import bpe, clean, corpus, idioms, packing, sources
from circuitjax.pretrain.packing import Corpus

LIBRARY = pathlib.Path(sysconfig.get_paths()["stdlib"])
MODULES = (
    "textwrap dataclasses argparse tokenize json/decoder logging/__init__ typing random ast inspect"
)
TINY = tuple(sources.Package(f"tiny-{letter}", "1.0", "MIT") for letter in "abcdefghij")


def _without_docstrings(tree: ast.Module) -> str:
    """Dump a tree without docstrings: an independent statement of what stripping may change."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = [part for part in node.body if not isinstance(part, ast.Pass)]
    return ast.dump(tree)


@pytest.mark.parametrize("name", MODULES.split())
def test_stripping_keeps_the_syntax_tree(name: str) -> None:
    source = (LIBRARY / f"{name}.py").read_text(encoding="utf-8")
    stripped = clean.strip_source(source)
    assert stripped is not None
    assert len(stripped) < len(source)
    assert _without_docstrings(ast.parse(stripped)) == _without_docstrings(ast.parse(source))
    assert clean.strip_source(stripped) == stripped


STRIPPED = '''x = """
# stays
   \n"""  # inline stays


def f():
    pass


class A:
    y = 1
z = (1,
     2)
'''


def test_stripping_takes_comments_and_leaves_strings() -> None:
    head = '#!/usr/bin/env python\n"""Module."""\n\n# gone\n'
    source = head + STRIPPED.replace("    pass", '    """Only this."""')
    source = source.replace("    y = 1", '    # gone\n    "doc"\n    y = 1   ')
    source = source.replace("     2)", "     # gone\n     2)")
    assert clean.strip_source(source) == STRIPPED


@pytest.mark.parametrize(
    "source",
    [
        'def f(): "doc"\n',
        'class A:\n    """d"""; x = 1\n',
        "x = 1 + \\\n    2\n",
        'f"""{a}\n# {b}\n"""\n',
        'def f():\n    "é" "ü"\n    return "é"  \n',
        'async def f():\n    """d"""\n    await g()\n',
    ],
)
def test_odd_sources_keep_their_tree(source: str) -> None:
    stripped = clean.strip_source(source)
    assert stripped is not None
    assert _without_docstrings(ast.parse(stripped)) == _without_docstrings(ast.parse(source))


def test_what_does_not_parse_is_left_out() -> None:
    assert clean.strip_source("def f(:\n") is None
    assert clean.strip_source("x = '\0'\n") is None
    assert clean.strip_source('"""Only words."""\n') == ""


def test_deduplication() -> None:
    seen = clean.Deduplicator()
    lines = [f"result_{k} = compute_something({k}, parameter)" for k in range(20)]
    assert seen.is_new("\n".join(lines))
    assert not seen.is_new("\n".join(lines))
    assert not seen.is_new("\n".join([*lines[:18], "another_line_here = entirely(different)"]))
    others = [f"other_{k} = quite_another({k})" for k in range(20)]
    assert seen.is_new("\n".join([*lines[:2], *others]))
    assert seen.is_new("a = 1\n")
    assert not seen.is_new("a = 1\n")
    with pytest.raises(ValueError, match="seen_fraction 0"):
        clean.Deduplicator(seen_fraction=0)


def _source(seed: int) -> str:
    """Return a module of its own, with a docstring on top."""
    return '"""A module."""\n' + "".join(idioms.documents(1000 + seed, 12))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A little library of many files, and a folder of small wheels."""
    root = tmp_path_factory.mktemp("sources")
    library, wheels = root / "library", root / "wheels"
    library.mkdir()
    wheels.mkdir()
    for number in range(30):
        (library / f"m{number}.py").write_text(_source(number))
        (library / f"twin{number}.py").write_text("# Another heading.\n" + _source(number))
    (library / "broken.py").write_text("def (:\n" * 100)
    for place, package in enumerate(TINY):
        wheel = wheels / f"{package.name.replace('-', '_')}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for number in range(4):
                archive.writestr(f"tiny/m{number}.py", _source(200 * (place + 1) + number))
            archive.writestr("tiny/_vendor/other.py", _source(99_999))
            archive.writestr("tiny/data.txt", "no Python")
    return library, wheels


def test_code_is_unique_stripped_and_within_its_size(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    library, wheels = folders

    def collect(seed: int) -> tuple[list[str], list[dict[str, object]]]:
        return sources.collect_code(0.02, seed, wheels, lambda _: None, TINY, library)

    texts, records = collect(0)
    assert len(texts) == len(set(texts))
    assert not any('"""A module."""' in text for text in texts)
    assert 0.8 * 2e4 <= sum(map(len, texts)) < 2e4 + max(map(len, texts))
    assert [record["licence"] for record in records] == ["PSF-2.0"] + ["MIT"] * len(TINY)
    vendored = clean.strip_source(_source(99_999))
    assert vendored not in texts
    assert collect(0)[0] == texts
    assert collect(1)[0] != texts


def test_too_little_source_is_said(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    library, wheels = folders
    with pytest.raises(ValueError, match="lower --code_megabytes"):
        sources.collect_code(5.0, 0, wheels, lambda _: None, TINY, library)


def test_a_package_that_cannot_be_had_is_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=r"cannot download no-such-thing 1\.0"):
        sources.fetch(sources.Package("no-such-thing", "1.0", "MIT"), tmp_path)


def test_a_built_corpus_opens_and_holds_its_documents(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    library, wheels = folders
    config = corpus.CorpusConfig(0.02, 1.0, validation_fraction=0.05)
    out, again = tmp_path / "corpus", tmp_path / "again"

    def quiet(line: str) -> None:
        assert "\n" not in line

    manifest = corpus.build(config, out, wheels, quiet, packages=TINY, library=library)
    assert corpus.finished_config(out) == json.loads(json.dumps(manifest["config"]))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    opened = Corpus.open(out)
    tokenizer = bpe.load(out / "tokenizer.json")
    seen: dict[tuple[str, str], set[str]] = {}
    for source in packing.SOURCES:
        for split in packing.SPLITS:
            tokens, starts = opened.stream(source, split)
            assert (tokens[starts] == packing.BOS).all()
            pieces = [piece[1:].tolist() for piece in np.split(tokens, starts[1:])]
            seen[source, split] = set(tokenizer.decode_batch(pieces))
        assert seen[source, "train"].isdisjoint(seen[source, "validation"])
    made = set(idioms.documents(config.seed, 20_000))
    assert seen["idioms", "train"] | seen["idioms", "validation"] <= made
    corpus.build(config, again, wheels, quiet, tokenizer, TINY, library)
    for name in ("idioms_train.npy", "code_train.npy", "tokenizer.json", "code_train_starts.npy"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


def test_encoding_in_groups_is_encoding_one_by_one() -> None:
    tokenizer = bpe.train(idioms.documents(0, 6000))
    texts = list(idioms.documents(2, 600))
    tokens, starts = corpus.encode_documents(tokenizer, texts)
    alone = [[packing.BOS, *tokenizer.encode(text).ids] for text in texts]
    np.testing.assert_array_equal(tokens, np.concatenate(alone))
    np.testing.assert_array_equal(starts, np.cumsum([0, *map(len, alone[:-1])]))
    with pytest.raises(ValueError, match="leave it out"):
        corpus.encode_documents(tokenizer, [bpe.END_OF_TEXT])
    with pytest.raises(ValueError, match="no documents"):
        corpus.encode_documents(tokenizer, [])


def test_bad_configs_are_refused() -> None:
    for arguments in ({"code_megabytes": 0.0}, {"seed": -1}, {"validation_fraction": 0.9}):
        with pytest.raises(ValueError, match="must"):
            corpus.CorpusConfig(**arguments)  # type: ignore[arg-type]


def test_packages_are_pinned_once_and_licensed() -> None:
    names = [package.name.lower() for package in sources.PACKAGES]
    assert len(names) == len(set(names))
    permissive = {"BSD-3-Clause", "BSD-2-Clause", "MIT", "Apache-2.0", "MIT OR Apache-2.0"}
    assert {package.licence for package in sources.PACKAGES} <= permissive
