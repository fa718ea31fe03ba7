"""An OpenAI-compatible server with a tiny "language model", for real requests over 127.0.0.1.

It explains by naming the tokens that were most active in the prompt, predicts 10 where a named
token stands, and detects by whether one does. `behaviour` makes it fail as servers do.
"""

import asyncio
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Behaviour = Callable[[int, dict[str, Any]], Response | float | None]
"""Given the number of the request, from 1, and its body: another answer than the right one, or
seconds to wait before that."""


class LanguageServer:
    """Counts requests and answers them."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.behaviour: Behaviour = lambda _number, _body: None
        self.has_logprobs = False
        self.address = ""

    @property
    def n_requests(self) -> int:
        return len(self.bodies)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization"))
        other = self.behaviour(len(self.bodies), body)
        if isinstance(other, Response):
            return other
        if other is not None:
            await asyncio.sleep(other)
        text, pieces = think(body["messages"])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": text}
        if self.has_logprobs and body.get("logprobs"):
            choice["logprobs"] = {"content": [logprob(piece) for piece in pieces]}
        return JSONResponse({"id": "1", "object": "chat.completion", "choices": [choice]})


def think(messages: list[dict[str, str]]) -> tuple[str, list[str]]:
    """The answer and its tokens."""
    system, asked = messages[0]["content"], messages[-1]["content"]
    if "give no lists" in system:
        block = asked.split("\nThe same, without the zeros")[0]
        lines = re.findall(r"(?m)^(.*)\t(\d+)$", block)
        largest = sorted({token for token, level in lines if int(level) >= 5})
        text = " and ".join(json.dumps(token) for token in largest) + "."
        return text, [text]
    named = {json.loads(one) for one in re.findall(r'"(?:[^"\\]|\\.)*"', asked.split("\n")[1])}
    if "answer 1 if" in system:
        said = asked.split("Text:\n")[1]
        named = {json.loads(one) for one in re.findall(r'"(?:[^"\\]|\\.)*"', asked.split("\n")[0])}
        text = str(int(any(token in said for token in named)))
        return text, [text]
    pieces = []
    for token in re.findall(r"(?m)^(.*)\tunknown$", asked):
        pieces += [token, "\t", "10" if token in named else "0", "\n"]
    return "".join(pieces), pieces


def logprob(piece: str) -> dict[str, Any]:
    """Nine tenths sure of what it says, and one tenth that it is 5."""
    top = [{"token": piece, "logprob": math.log(0.9)}, {"token": "5", "logprob": math.log(0.1)}]
    return {"token": piece, "logprob": math.log(0.9), "top_logprobs": top}


@contextmanager
def serving() -> Iterator[Callable[[], LanguageServer]]:
    """Serve in a thread, on a free port of 127.0.0.1; the value makes a new server of that port.

    A request is answered by the newest one.
    """
    newest: list[LanguageServer] = []

    async def answer(request: Request) -> Response:
        return await newest[-1].answer(request)

    def renew() -> LanguageServer:
        newest[:] = [LanguageServer()]
        newest[0].address = address
        return newest[0]

    app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield renew
        server.should_exit = server.force_exit = True
        thread.join(10)
        assert not thread.is_alive()


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    """An error as OpenAI words it; `retry_after_ms` makes the client try again at once."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(body, status, headers={"retry-after-ms": "1", **named})


def plain(text: str, media_type: str = "application/json") -> Response:
    """A body that need not be JSON."""
    return PlainTextResponse(text, media_type=media_type)
