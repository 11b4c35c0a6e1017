"""Laws of the idioms: seeded, always correct Python, and true to the rules that they teach."""

import ast
import collections
import random
import re
import tokenize
from io import StringIO

import pytest

from circuitjax.pretrain import idioms
from circuitjax.pretrain.idioms.pen import Pen
from circuitjax.tasks import words

COUNT = 3000


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(idioms.documents(7, COUNT))


def _trees(documents: list[str]) -> list[ast.Module]:
    return [ast.parse(text) for text in documents]


def test_a_document_depends_on_its_seed_and_number_alone(documents: list[str]) -> None:
    assert list(idioms.documents(7, 50, start=100)) == documents[100:150]
    assert list(idioms.documents(8, 50)) != documents[:50]
    assert idioms.generate(random.Random(5)) == idioms.generate(random.Random(5))


def test_every_document_compiles_without_a_warning(documents: list[str]) -> None:
    for text in documents:
        assert text == text.rstrip("\n") + "\n"
        compile(text, "<idiom>", "exec")  # Warnings are errors here.


@pytest.mark.parametrize("theme", idioms.THEMES, ids=lambda theme: theme[0])
def test_every_theme_compiles_and_varies(theme: tuple) -> None:  # type: ignore[type-arg]
    texts = ["\n".join(theme[1](Pen(random.Random(seed)))) + "\n" for seed in range(200)]
    for text in texts:
        compile(text, "<theme>", "exec")
    assert len(set(texts)) > 190


def test_themes_come_in_the_shares_of_their_weights() -> None:
    drawn = collections.Counter(
        idioms.generate_with_theme(random.Random(seed))[1] for seed in range(6000)
    )
    total = sum(weight for _, _, weight in idioms.THEMES)
    for name, _, weight in idioms.THEMES:
        expected = 6000 * weight / total
        assert abs(drawn[name] - expected) < 5 * expected**0.5


def test_documents_are_short(documents: list[str]) -> None:
    sizes = sorted(
        len([t for t in tokenize.generate_tokens(StringIO(text).readline) if t.string.strip()])
        for text in documents
    )
    assert sizes[COUNT // 10] > 15
    assert sizes[COUNT // 2] < 90
    assert sizes[-COUNT // 50] < 200


def test_an_if_is_followed_by_elif_and_an_elif_by_else(documents: list[str]) -> None:
    chains = 0
    for text in documents:
        last: dict[int, str] = {}
        for line in text.split("\n"):
            bare = line.lstrip(" ")
            if not bare:
                continue
            depth = len(line) - len(bare)
            for deeper in [key for key in last if key > depth]:
                del last[deeper]
            word = re.match(r"(if|elif|else)\b", bare)
            if word is None:
                last.pop(depth, None)
                continue
            if word[1] == "elif":
                assert last.get(depth) == "if"
            elif word[1] == "else":
                assert last.get(depth) == "elif"
                chains += 1
            last[depth] = word[1]
    assert chains > COUNT // 20


def test_variables_are_used_as_what_they_began_as(documents: list[str]) -> None:
    added = appended = 0
    for text in documents:
        kinds: dict[str, str] = {}
        for line in text.split("\n"):
            found = re.fullmatch(r" *(\w+) = (set|str)\(\w*\)", line)
            if found:
                kinds[found[1]] = found[2]
            found = re.fullmatch(r" *(\w+)\.add\(.*\)", line)
            if found and found[1] in kinds:
                assert kinds[found[1]] == "set"
                added += 1
            found = re.match(r" *(\w+) \+= ", line)
            if found and found[1] in kinds:
                assert kinds[found[1]] == "str"
                appended += 1
    assert min(added, appended) > 50


def test_files_are_used_as_they_were_opened() -> None:
    theme = {name: made for name, made, _ in idioms.THEMES}["file_modes"]
    for seed in range(300):
        text = "\n".join(theme(Pen(random.Random(seed))))
        found = re.search(r"""["']([rw])b?["']\) as (\w+):""", text)
        assert found is not None
        used = re.findall(rf"\b{found[2]}\.(write|read)\(", text)
        assert used == [{"w": "write", "r": "read"}[found[1]]]


def test_swaps_exchange_what_they_name(documents: list[str]) -> None:
    swaps = 0
    for tree in _trees(documents):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Tuple)
                and isinstance(node.value, ast.Tuple)
            ):
                left = [ast.unparse(part) for part in node.targets[0].elts]
                right = [ast.unparse(part) for part in node.value.elts]
                assert left == right[::-1]
                assert len(set(left)) == 2
                swaps += 1
    assert swaps > COUNT // 20


def test_two_loop_variables_take_enumerate_and_range_has_one(documents: list[str]) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for tree in _trees(documents):
        for node in ast.walk(tree):
            if isinstance(node, ast.For):
                called = node.iter.func if isinstance(node.iter, ast.Call) else None
                name = called.id if isinstance(called, ast.Name) else ""
                two = isinstance(node.target, ast.Tuple)
                assert two == (name == "enumerate")
                seen[name] += 1
    assert min(seen["enumerate"], seen["range"]) > 50


def test_calls_with_and_without_keywords_are_common(documents: list[str]) -> None:
    both = collections.Counter(
        bool(node.keywords)
        for tree in _trees(documents)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) + len(node.keywords) > 2
    )
    assert min(both.values()) > COUNT // 60


def test_surface_forms_are_balanced(documents: list[str]) -> None:
    text = "".join(documents)
    for one, other in (
        ("')\n", '")\n'), ("]]\n", "]\n"), (".write(", ".read("), ("set()", "str()"),
        ("lambda ", "def "), ("while True:", "return True"), ("]\n", "}\n"),
    ):  # fmt: skip
        low, high = sorted((text.count(one), text.count(other)))
        assert low > 30, (one, other)
        assert high < 12 * low, (one, other)


def test_the_words_of_the_tasks_are_all_used() -> None:
    seen = set(re.findall(r"[A-Za-z]+", "".join(idioms.documents(1, 12_000))))
    wanted = {*words.NAMES, *words.FUNCTIONS, *words.CLASSES, *words.FLAGS, *words.STRINGS}
    assert wanted <= seen | {"f"}


def test_bad_numbers_are_refused() -> None:
    for arguments in ((-1, 1, 0), (0, -1, 0), (0, 1, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            list(idioms.documents(*arguments))
