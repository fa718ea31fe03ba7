"""`wirework explain` as a user runs it: its output, its exit code, a kill."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Started, run_here
from language_server import LanguageServer
from planted_neurons import SITE, TOKEN, planted

from wirework.data import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model, and text of words it knows, which the first test prepares for all."""
    folder = tmp_path_factory.mktemp("explain")
    planted(tokenizer).save(folder / "model")
    words = [tokenizer.token(i) for i in (*range(300, 420), TOKEN, TOKEN)]
    (folder / "text").mkdir()
    for i in range(40):
        lines = ("".join(words[(i * j + k * j) % len(words)] for k in range(30)) for j in range(9))
        (folder / "text" / f"{i}.txt").write_text("\n".join(lines))
    return folder


def words(*more: str) -> list[str]:
    return [
        "explain", "model", "--corpus", "text", "--excerpt-tokens", "16",
        "--explain-excerpts", "100", "--score-excerpts", "50", *more,
    ]  # fmt: skip


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_here(*words(*more), cwd=folder)


def test_patterns_as_a_table_and_as_json(folder: Path) -> None:
    result = run(folder, "--out", "found", "--only", f"{SITE}.0", "--only", f"{SITE}.2")
    assert result.returncode == 0, result.stderr
    assert "top_and_random" in result.stdout
    result = run(folder, "--out", "found", "--only", f"{SITE}.0", "--only", f"{SITE}.2", "--json")
    found = json.loads(result.stdout)
    assert (found["explained"], found["dead"], found["failed"]) == (1, 1, 0)
    assert found["scores"]["top_and_random"]["mean"] > 0.9
    export = ["export", "found", "-o", "found.html"]
    shown = run_here(*export, cwd=folder)
    assert shown.stdout == "found.html\n", shown.stderr
    assert "Explained neurons: 1<" in (folder / "found.html").read_text()
    refused = run_here(*export, "--png", "found.png", cwd=folder)
    assert (refused.returncode, "--png draws circuits" in refused.stderr) == (2, True)


def test_mistakes_are_one_line(folder: Path) -> None:
    for more, says in (
        (["--out", "a", "--explainer", "language_model"], "needs server.model"),
        (["--out", "a", "--server.model", "tiny"], "explainer is not language_model"),
        (["--out", "a", "--only", "0.mlp.post_act.9"], "has neurons 0 .. 5, got 9"),
    ):
        result = run(folder, *more)
        assert result.returncode == 2, more
        assert result.stdout == ""
        assert says in result.stderr.splitlines()[-1]


def asking(server: LanguageServer) -> list[str]:
    return [
        "--explainer", "language_model", "--server.model", "tiny", "--server.base-url",
        server.address, "--server.concurrency", "1",
    ]  # fmt: skip


def test_an_estimate_asks_nothing(folder: Path, server: LanguageServer) -> None:
    more = ["--only", f"{SITE}.0", "--server.price-in", "1", *asking(server)]
    found = json.loads(run(folder, "--estimate-only", "--json", *more).stdout)
    assert found["requests"] == 21
    assert found["price"] == pytest.approx(found["tokens_in"] / 1e6)
    assert server.n_requests == 0


@pytest.mark.slow
def test_after_a_kill_the_same_command_asks_only_for_the_rest(
    folder: Path, server: LanguageServer, start: Callable[..., Started]
) -> None:
    more = ["--out", "killed", "--only", f"{SITE}.0", "--only", f"{SITE}.4", *asking(server)]
    server.behaviour = lambda number, _: 60.0 if number == 25 else None
    process = start(*words(*more), cwd=folder)
    until(lambda: server.n_requests == 25)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=10)
    assert "about 42 requests" in errors
    kept = [path.name for path in (folder / "killed" / "neurons").iterdir()]
    assert kept == [f"{SITE}.0.json"]
    server.behaviour = lambda *_: None
    result = run(folder, *more)
    assert result.returncode == 0, result.stderr
    assert server.n_requests == 43  # the one that was under way is asked again
    assert not list((folder / "killed").rglob("*.partial"))


@pytest.mark.slow
def test_a_signal_ends_it_while_answers_are_awaited(
    folder: Path, server: LanguageServer, start: Callable[..., Started]
) -> None:
    server.behaviour = lambda *_: 60.0
    more = [
        "--out",
        "stopped",
        "--only",
        f"{SITE}.0",
        "--only",
        f"{SITE}.4",
        *asking(server),
    ]
    process = start(*words(*more[:-1], "3"), cwd=folder)
    until(lambda: server.n_requests >= 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "the same command goes on from what was saved in stopped" in errors.splitlines()[-1]


def until(done) -> None:
    limit = time.monotonic() + 60
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.02)
