"""A circuit's page as a file: nothing in it can run but what its policy names, and it is bounded."""

import base64
import fnmatch
import hashlib
import html.parser
import json
import pathlib
import re
import tomllib

import pytest

from circuitjax.report.viewer import page as page_module
from circuitjax.report.viewer.page import MOST_BYTES, render_page, write_page
from circuitjax.report.viewer.show import show
from circuitjax.report.viewer.texts import idiom_contexts
from tests.prune.planted import planted_model
from tests.report.viewer_pages import HOSTILE, hostile_data, planted_circuit, planted_data

ROOT = pathlib.Path(page_module.__file__).parent
REPOSITORY = ROOT.parents[2]


class Parser(html.parser.HTMLParser):
    """Elements, attributes and the content of scripts and styles of a page, as a browser sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.content, self.attributes, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = tag in ("script", "style")
        if self.inside:
            self.content.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            tag, attrs, text = self.content[-1]
            self.content[-1] = (tag, attrs, text + data)


def test_hostile_texts_stay_texts():
    plain, hostile = render_page(planted_data()), render_page(hostile_data())
    good, bad = Parser(plain), Parser(hostile)
    assert good.tags == bad.tags
    blocks = [text for tag, attrs, text in bad.content if attrs.get("id") == "data"]
    assert json.loads(blocks[0]) == json.loads(json.dumps(hostile_data()))
    scripts = [text for tag, attrs, text in good.content if tag == "script" and not attrs]
    assert scripts == [text for tag, attrs, text in bad.content if tag == "script" and not attrs]
    for text in HOSTILE[:2]:
        assert text not in hostile
    assert not any(c in hostile for c in "\u2028\u2029\u202e\x00")


def test_its_policy_names_what_runs_and_nothing_else():
    parsed = Parser(render_page(planted_data()))
    policy = next(v for k, v in parsed.attributes if k == "content" and "default-src" in v)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"

    def hashed(tag):
        texts = [text for t, attrs, text in parsed.content if t == tag and not attrs]
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        return [f"'sha256-{digest}'" for digest in digests]

    assert rules["script-src"].split() == hashed("script")
    assert rules["style-src"].split() == hashed("style")
    assert len(hashed("script")) == 24
    assert "unsafe" not in policy
    outside = [(k, v) for k, v in parsed.attributes if k in ("src", "href", "style", "srcset")]
    assert outside == []
    assert not any(k.startswith("on") for k, _ in parsed.attributes)


def test_its_size_is_bounded(tmp_path, monkeypatch):
    size = write_page(tmp_path / "a.html", planted_data())
    assert size == (tmp_path / "a.html").stat().st_size < MOST_BYTES / 10
    monkeypatch.setattr(page_module, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="11 nodes and 6 edges would take"):
        write_page(tmp_path / "b.html", planted_data())
    monkeypatch.undo()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write"):
        write_page(tmp_path / "file" / "c.html", planted_data())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "file"]


def test_show_frames_the_page_for_a_notebook():
    page = show(planted_circuit(), planted_model(), height=500)
    text = page._repr_html_()
    assert Parser(text).tags == ["iframe"]
    attributes = dict(Parser(text).attributes)
    assert attributes["srcdoc"] == page.html
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["height"] == "500"
    # Its task is no built-in one: it says so, and shows what there is.
    assert "there is no task 'first_letter'" in page.data["note"]
    assert page.data["prompts"] is page.data["loss"] is page.data["contexts"] is None
    with pytest.raises(ValueError, match="did you mean with_as"):
        show(planted_circuit(), planted_model(), task="with_os")
    with pytest.raises(ValueError, match="is empty: there is nothing to show"):
        show(planted_circuit(()), planted_model())
    with pytest.raises(ValueError, match="load the model it was found in"):
        show(planted_circuit(), planted_model(2.0, "other"))
    sources = [path.read_text() for path in ROOT.glob("*.py")]
    assert not any(re.search(r"import IPython|from IPython", text) for text in sources)


def test_no_text_is_made_for_a_model_that_is_not_built_in():
    assert idiom_contexts(planted_model()) is None


def test_everything_is_installed_and_the_library_is_as_it_was_published():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["circuitjax"]
    files = [path for folder in ("assets", "vendor") for path in (ROOT / folder).iterdir()]
    assert len(files) > 15
    for path in files:
        name = str(path.relative_to(REPOSITORY / "circuitjax"))
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name
    licences = (ROOT / "vendor" / "LICENSE").read_text()
    listed = re.findall(
        r"^(d3-\w+)\.min\.js +([\d.]+) +\S+ +sha256 (\w+)$",
        (ROOT / "vendor" / "VERSIONS.txt").read_text(),
        re.MULTILINE,
    )
    assert {f"{name}.min.js" for name, _, _ in listed} == {
        path.name for path in (ROOT / "vendor").glob("*.js")
    }
    for name, version, digest in listed:
        content = (ROOT / "vendor" / f"{name}.min.js").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert f"v{version}".encode() in content[:200]
        assert f"==== {name} ====" in licences
