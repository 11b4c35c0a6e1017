"""One circuit as one HTML file: data, style, scripts and drawing library in it, nothing beside it.

Nothing a name, a token or a report holds can become code: data lies in a block of JSON in which every
`<`, `>`, `&` and every character outside ASCII is an escape; the scripts put text into the page as
text; and the page's own policy lets only the scripts and the style run whose hashes it names, and
nothing be fetched.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from circuitjax.core.files import write_bytes

__all__ = ["MOST_BYTES", "render_page", "title_text", "write_page"]

MOST_BYTES = 5_000_000
# In this order: d3's modules build on one another, and so do ours.
_VENDOR = (
    *("color", "dispatch", "ease", "timer", "selection", "interpolate", "drag", "transition"),
    *("zoom",),
)
_SCRIPTS = (
    *("data", "layout", "canvas", "labels", "compare", "groups", "marks", "tokens", "node_panel"),
    *("why", "head_panel", "overview", "search", "view", "main"),
)


def _asset(folder: str, name: str) -> str:
    root = importlib.resources.files("circuitjax.report.viewer")
    text = (root / folder / name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "</style" in text.lower():
        raise ValueError(f"{folder}/{name} would end its own element: spell the tag in two parts")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Any) -> str:
    """JSON of ASCII characters without `<`, `>` and `&`."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def render_page(data: dict[str, Any]) -> str:
    """The HTML text of `collect.page_data`.

    Raises:
      ValueError: it would be larger than `MOST_BYTES`.
    """
    library = [_asset("vendor", f"d3-{name}.min.js") for name in _VENDOR]
    scripts = [*library, *(_asset("assets", f"{name}.js") for name in _SCRIPTS)]
    style = _asset("assets", "style.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(_hash(script) for script in scripts)}",
            f"style-src {_hash(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    parts = {
        "policy": html.escape(policy, quote=True).replace("&#x27;", "'"),
        "title": title_text(data),
        "style": f"<style>{style}</style>",
        "licence": _asset("vendor", "LICENSE").replace("--", "- -"),
        "data": f'<script type="application/json" id="data">{_json(data)}</script>',
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # One pass: what is put in is never looked through again.
    text = re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _template())
    size = len(text.encode())
    if size > MOST_BYTES:
        nodes, edges = len(data["nodes"]), len(data["edges"])
        raise ValueError(
            f"the page of this circuit of {nodes} nodes and {edges} edges would take {size} bytes, "
            f"above {MOST_BYTES}: prune it further"
        )
    return text


def title_text(data: Mapping[str, Any]) -> str:
    """The title as HTML text or as an attribute's value: ASCII, no control characters."""
    shown = "".join(c if c.isprintable() else " " for c in str(data["title"]))
    return html.escape(shown, quote=True).encode("ascii", "xmlcharrefreplace").decode()


def _template() -> str:
    root = importlib.resources.files("circuitjax.report.viewer")
    return (root / "assets" / "page.html").read_text(encoding="utf-8")


def write_page(path: str | os.PathLike[str], data: dict[str, Any]) -> int:
    """Writes the page atomically and returns its size in bytes.

    Raises:
      ValueError: too large, or the path cannot be written.
    """
    content = render_page(data).encode()
    target = pathlib.Path(path)
    try:
        write_bytes(target, content)
    except OSError as error:
        raise ValueError(f"cannot write {target}: {error}") from None
    return len(content)
