"""What tests of several folders need."""

import ast
import difflib
import errno
import functools
import io
import json.decoder
import json.encoder
import os
import shutil
import signal
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
import torch
from command_line import Server, Started
from small_world import make_world

from wirework.cache_folder import cache_folder
from wirework.console import show_messages
from wirework.data import Tokenizer, train_tokenizer
from wirework.data.answers import ANSWERS
from wirework.nn import abs_top_k, causal_attention
from wirework.nn.kernels import sparse_linear
from wirework.nn.kernels.gated_top_k import SiteChannels, SiteTable, gated_top_k
from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.loss import next_token_loss
from wirework.nn.kernels.prefix_attention import HeadChannels, Queries, prefix_attention
from wirework.tasks import load_task

show_messages()  # as the command line does: pytest's own handlers would hide them
_CACHE = tempfile.TemporaryDirectory(prefix="wirework-tests-")
if _users_cache := cache_folder():
    # Kernels are compiled once, for all test processes and later runs.
    (_users_cache / "compiled").mkdir(parents=True, exist_ok=True)
    (Path(_CACHE.name) / "wirework").mkdir()
    (Path(_CACHE.name) / "wirework" / "compiled").symlink_to(_users_cache / "compiled")
os.environ["XDG_CACHE_HOME"] = _CACHE.name  # of children too
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, and then by children too
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell

# For each command cyclopts parses the source of all settings classes, and of pydantic: cached here.
docstring_parser.parse_from_object = functools.cache(docstring_parser.parse_from_object)


def compile_kernels() -> None:
    """Compile what commands need: the first compilation logs a line, as if a command had."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        abs_top_k(torch.ones(2, 9, dtype=dtype, requires_grad=True), 2).sum().backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sparse_linear.VARIABLE, "1")
        weight, ids = torch.ones(128, 128, requires_grad=True), torch.zeros(1, dtype=torch.int64)
        state = linear(torch.ones(1, 128, requires_grad=True), weight)
        next_token_loss(state, weight, ids, bigram=weight, tokens=ids).backward()
    heads = torch.ones(1, 1, 64, 16, requires_grad=True)
    causal_attention(heads, heads, heads).sum().backward()
    x, gates, row = torch.ones(1, 1, 1, requires_grad=True), torch.ones(1, 1), torch.zeros(1)
    gated_top_k(x, SiteTable.of([SiteChannels(row.long(), 1)]), gates, row).sum().backward()
    own, end = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64)
    channels = HeadChannels(own.expand(1, 2), end, row, 1.0, None)
    prefix_attention(x, x, x, Queries(own[0], own, own[0]), channels).sum().backward()


compile_kernels()

TASKS = ("single_double_quote", "bracket_counting", "for_while")


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Models this small lose time to handing work between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few modules of the standard library."""
    folder = tmp_path_factory.mktemp("corpus")
    for module in (ast, difflib, json.decoder, json.encoder, textwrap):
        shutil.copy(str(module.__file__), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """512 tokens, trained on the text of three tasks; their answers are single tokens.

    Three, so that it cuts `('` and `("` alike: the hand-wired models count on that.
    """
    tasks = [load_task(name, seed=99, n=200) for name in TASKS]
    texts = [prompt for task in tasks for pair in task.pairs for prompt in pair.prompts]
    answers = [answer for answer in ANSWERS if answer.task in TASKS]
    return train_tokenizer(texts, 512, answers)


@pytest.fixture
def unreadable() -> Callable[..., AbstractContextManager[None]]:
    """Return `unreadable(path, code)`: in its block the system fails to read that file or folder.

    Opening and listing fail, by any of the standard library's ways.
    """

    @contextmanager
    def failing(path: Path, code: str = "EIO") -> Iterator[None]:
        number = getattr(errno, code)
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((io, "open"), (os, "open"), (os, "listdir"), (os, "scandir")):
                real = getattr(module, name)

                def fail(place: Any, *rest: Any, real: Any = real, **more: Any) -> Any:
                    if isinstance(place, str | os.PathLike) and Path(place) == path:
                        raise OSError(number, os.strerror(number), str(place))
                    return real(place, *rest, **more)

                patch.setattr(module, name, fail)
            yield

    return failing


@pytest.fixture(autouse=True)
def _interrupts_raise() -> Iterator[None]:
    """Put back what Ctrl-C does; fail a test that leaves it ignored or blocked.

    The command's `main` changes the handler, for a process of its own. Processes that later tests
    start would inherit an ignored or blocked signal, and not end on it.
    """
    yield
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    assert handler not in (signal.SIG_IGN, None), "this test leaves SIGINT ignored"
    assert not blocked, f"this test leaves signals blocked: {blocked}"


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def start(_server: Server) -> Iterator[Callable[..., Started]]:
    """Return `start(*words, cwd=None, env=None, ignored=())`, which starts the command.

    In a process of its own, which ends with the test. To run the command within this process, and
    for when an interpreter of its own is needed, see `command_line.py`.
    """
    yield _server.start
    _server.end_commands()


@pytest.fixture
def few_random_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw three random circuits as a control, not twenty: for tests of other things."""
    monkeypatch.setattr("wirework.circuits.validation.controls._RANDOM", 3)


@pytest.fixture
def in_time() -> Callable[[], AbstractContextManager[None]]:
    """Return `in_time()`: a block that waits for ever fails after some seconds."""

    @contextmanager
    def limited() -> Iterator[None]:
        def late(*_: object) -> None:
            raise AssertionError("it waits")

        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(20)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limited


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, one_thread: None) -> Path:
    """A folder with `model`, `pairs.jsonl`, `circuit`, `paths` and text; see `small_world.py`."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder, tokenizer)
    return folder
