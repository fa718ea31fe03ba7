"""The page as one HTML file without external resources.

Tokens are untrusted text. They are embedded as JSON with `<`, `>` and `&` escaped and shown through
textContent; a content security policy by hash refuses every script or style but the page's own.
"""

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from wirework.files import write_text
from wirework.view.page.page_data import load_page_data
from wirework.view.visible_text import plain

_SCRIPTS = (
    "page_dom.js",
    "page_circuit.js",
    "page_paths.js",
    "page_view.js",
    "page_graph.js",
    "page_panel.js",
    "page.js",
)
_ESCAPES = {c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render_page(data: dict[str, Any]) -> str:
    """Return the page as one HTML document; the same data gives the same text.

    Args:
        data: what `load_page_data` returned.
    """
    parts = {
        "POLICY": content_policy(),
        "TITLE": html.escape(plain(f"{data['task']['name']} · wirework")),
        "STYLE": _style(),
        "DATA": _json_block(data),
        "SCRIPT": _script(),
    }
    # In one pass: a token that looks like a placeholder must not be replaced.
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], asset("page/page.html"))


def write_page(circuit_dir: str | Path, out: str | Path) -> Path:
    """Write the page of a circuit folder to `out`, whole or not at all, and return `out`.

    Args:
        circuit_dir: a folder that `Circuit.save` wrote.
        out: the HTML file.

    Raises:
        InputError: the folder is not a readable circuit, or `out` cannot be written.
    """
    out = Path(out)
    write_text(out, render_page(load_page_data(circuit_dir)))
    return out


def content_policy() -> str:
    """Return the content security policy: only the page's own script and style may run."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{hash_of(_script())}'",
            f"style-src '{hash_of(_style())}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _json_block(data: dict[str, Any]) -> str:
    """Return JSON in which no character can end or open an HTML element."""
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPES[match[0]], plain)


def _script() -> str:
    return "\n".join(asset(f"page/{name}") for name in _SCRIPTS)


def _style() -> str:
    return asset("page/page.css")


def asset(name: str) -> str:
    """Return the text of a file in `view/`, such as `page/page.css`."""
    return files("wirework.view").joinpath(name).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """Return the hash by which a content security policy names a script or style."""

    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
