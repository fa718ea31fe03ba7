import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from circuit_maker import make_circuit

from wirework.errors import InputError
from wirework.view import load_page_data, render_page, write_page

ATTACKS = (
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "@@SCRIPT@@",
    "\u2028\u2029&amp;",
    "\ud800",  # half a surrogate pair: no UTF-8 holds it
)


def block(html: str, opening: str, closing: str) -> str:
    """The one piece of a page between two markers."""
    _, _, rest = html.partition(opening)
    return rest.partition(closing)[0]


def test_hostile_tokens_stay_inside_the_data_block(tmp_path: Path) -> None:
    data = load_page_data(make_circuit(tmp_path / "c", extra_tokens=ATTACKS, task="<b>&\"'"))
    html = render_page(data)
    inside = block(html, 'id="data">', "</script>")
    assert json.loads(inside) == data
    assert not re.search("[<>&\u2028\u2029]", inside)
    assert html.count("</script>") == 2
    assert "<title>&lt;b&gt;&amp;&quot;&#x27; · wirework</title>" in html
    assert "onerror=alert(1)>" not in html
    html.encode()


def test_policy_allows_exactly_our_script_and_style(circuit: Path) -> None:
    html = render_page(load_page_data(circuit))
    policy = block(html, 'http-equiv="Content-Security-Policy" content="', '"')
    for name, opening, closing in (
        ("script", "<script>", "</script>"),
        ("style", "<style>", "</style>"),
    ):
        digest = hashlib.sha256(block(html, opening, closing).encode()).digest()
        assert f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_page_is_whole_in_itself_and_builds_no_html_from_data(circuit: Path) -> None:
    html = render_page(load_page_data(circuit))
    assert "@@" not in html
    addresses = set(re.findall(r"https?://[^\s\"']+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert not re.search(r"\b(src|href)=(?!\"data:,\")", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", html)


def test_write_page_is_deterministic(circuit: Path, tmp_path: Path) -> None:
    first = write_page(circuit, tmp_path / "a" / "page.html").read_bytes()
    assert first == write_page(circuit, tmp_path / "b.html").read_bytes()


def test_write_page_says_when_it_cannot(circuit: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*page.html: File exists"):
        write_page(circuit, tmp_path / "file" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder: Is a directory"):
        write_page(circuit, tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_import_is_light() -> None:
    code = (
        "import sys, wirework.view as view; dir(view); "
        "print([m for m in ('torch', 'matplotlib', 'starlette', 'uvicorn') if m in sys.modules]);"
        "view.render_page; view.load_page_data; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_unknown_name_of_the_package() -> None:
    import wirework.view

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        wirework.view.nothing  # noqa: B018
