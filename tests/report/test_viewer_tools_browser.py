"""Groups, another circuit and scores by channel, in a real browser."""

import json

import numpy as np
import pytest

from circuitjax.report.viewer.groups import read_groups
from tests.prune.planted import PLANTED
from tests.report.viewer_pages import planted_circuit, planted_data

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.keys import Keys  # noqa: E402

from tests.report.chromium import CHROMIUM, DRIVER, Browser  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)
TEXTS = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.driver.quit()


def name_group(browser, node, name):
    """Writes a group's name into a node's panel."""
    browser.click_mark(browser.node(node))
    box = browser.find("#group-name")
    box.send_keys(name, Keys.ENTER)


def test_nodes_are_grouped_by_name_and_the_file_is_read_again(browser, tmp_path):
    browser.open(planted_data())
    browser.settle()
    name_group(browser, PLANTED[0], "which letter")
    name_group(browser, PLANTED[1], "which letter")
    name_group(browser, PLANTED[2], "moved")
    browser.press(Keys.ESCAPE)
    names = browser.js("return [...document.querySelectorAll('.groups input')].map(e => e.value)")
    assert names == ["which letter", "moved"]
    # One edge joins the two groups: from the value channel to the write.
    assert "which letter → moved: 1 edges" in browser.js(TEXTS, "#overview .links li")
    strokes = [browser.find(browser.node(name)).get_attribute("style") for name in PLANTED[:3]]
    assert len({style.split("stroke:")[1] for style in strokes[:2]}) == 1
    assert strokes[1] != strokes[2]
    path = tmp_path / "groups.json"
    path.write_text(browser.js("return viewer.groupsText()"))
    found = read_groups(path, planted_circuit())
    assert [(group.name, set(group.nodes)) for group in found] == [
        ("which letter", set(PLANTED[:2])),
        ("moved", {PLANTED[2]}),
    ]
    # What was kept is there when the page is made again.
    rows = json.loads(path.read_text())["groups"]
    browser.open({**planted_data(), "groups": rows}, "again")
    assert json.loads(browser.js("return viewer.groupsText()"))["groups"] == rows
    assert browser.complaints() == []


def test_what_another_circuit_lacks_stands_out(browser):
    names = [node["id"] for node in planted_data()["nodes"]]
    shared = [place for place, name in enumerate(names) if name in PLANTED]
    counts = {
        "nodes": [7, 4, 1],
        "edges": [6, 0, 2],
        "shared": shared,
        "missing": ["1.attn.v.h0.c1"],
    }
    browser.open({**planted_data(), "compared": {"title": "b", "ablation": "zero", **counts}})
    browser.settle()
    assert len(browser.js(TEXTS, ".node.alone")) == len(names) - len(shared)
    assert browser.js(TEXTS, ".compared tbody td") == ["7", "4", "1", "6", "0", "2"]
    for choice, count in (("both", 7), ("alone", 4), ("all", 11)):
        browser.js(f"document.querySelector('[name=compare][value={choice}]').click()")
        assert browser.js("return viewer.shownNodes") == count
    assert browser.complaints() == []


def test_a_heads_choice_is_taken_apart_by_channel(browser):
    """Two channels, of which one alone tells the tokens apart: 2 * (3 - mean of 0, 1, 2, 3)."""
    from circuitjax.report.viewer.packing import pack, pack_scaled

    data = json.loads(json.dumps(planted_data()))
    count = len(data["attention"]["tokens"][0])
    keys = np.zeros((2, 2, count, 2))
    keys[..., 0], keys[..., 1] = np.minimum(np.arange(count), 3), 5
    queries = np.full((2, 2, count, 2), 2.0)
    products = {"q": pack_scaled(queries), "k": pack_scaled(keys)}
    data["attention"]["products"] = {"scale": 1.0, "circuit": products, "model": products}
    pattern = np.zeros((2, 2, count, count), int)
    pattern[..., 3] = 200
    data["attention"]["circuit"] = pack(pattern, "u1")
    browser.open(data)
    browser.settle()
    browser.js("viewer.go({head: '0.h0'})")
    picks = browser.js(
        "return [...document.querySelectorAll('.why select')].map(e => Number(e.value))"
    )
    last = data["attention"]["last"][0]
    assert picks == [last, 3]
    mean = np.minimum(np.arange(last + 1), 3).mean()
    cells = browser.js(TEXTS, ".why tbody tr:first-child td.num")
    shown = [float(cell.replace("\u2212", "-")) for cell in cells]
    assert shown == pytest.approx([2, 3, 2 * (3 - mean)], rel=0.02)
    assert len(browser.js(TEXTS, ".why tbody tr")) == 2  # the other channel makes no difference
    assert browser.complaints() == []
