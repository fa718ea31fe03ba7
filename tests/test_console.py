import io
import sys

from wirework import console


def test_warn_once_says_a_line_once(capsys, monkeypatch):
    monkeypatch.setattr(console, "_said_once", set())
    for line in ("a", "a", "b"):
        console.warn_once(line)
    assert capsys.readouterr().err == "warning: a\nwarning: b\n"


def test_say_escapes_what_standard_error_cannot_show(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    console.say("café")
    assert raw.getvalue() == b"caf\\xe9\n"
