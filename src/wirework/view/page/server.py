"""Local server for the page: it listens on 127.0.0.1 and checks the Host header.

Another site can point its own name at 127.0.0.1 (DNS rebinding); such a request has that name in
its Host header and is refused.
"""

import json
import logging
import signal
import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.errors import InputError
from wirework.view.page.page import content_policy, render_page
from wirework.view.page.page_data import load_page_data

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

HOST = "127.0.0.1"
_SECONDS_TO_END = 2
"""Seconds after Ctrl-C in which responses that are under way may end."""


def serve(circuit_dir: str | Path, port: int = 0, open_browser: bool = False) -> None:
    """Serve the page of a circuit folder on 127.0.0.1 until Ctrl-C.

    Prints the address on standard output. `/` is the page, `/data.json` the page data.

    Args:
        circuit_dir: a folder that `Circuit.save` wrote; read once, at the start.
        port: port number; 0 for any free port.
        open_browser: also open the page in the browser.

    Raises:
        InputError: the folder is not a readable circuit, or the port cannot be used.
        Interrupted: a signal other than Ctrl-C's ended the server.
    """
    try:
        app = make_app(load_page_data(circuit_dir))
        server = _server(app)
        with _listen(port) as listener:
            address = f"http://{HOST}:{listener.getsockname()[1]}/"
            print(address, flush=True)
            if open_browser:
                webbrowser.open(address)
            server.run(sockets=[listener])
    except KeyboardInterrupt as interrupt:
        if getattr(interrupt, "number", signal.SIGINT) != signal.SIGINT:
            raise


def make_app(data: dict[str, Any]) -> "Starlette":
    """Return the web application that serves page data.

    Args:
        data: what `load_page_data` returned.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    page = render_page(data).encode()
    data_json = json.dumps(data, allow_nan=False).encode()
    headers = _security_headers()

    async def show_page(_: Request) -> Response:
        return Response(page, media_type="text/html", headers=headers)

    async def show_data(_: Request) -> Response:
        return Response(data_json, media_type="application/json", headers=headers)

    return Starlette(
        routes=[Route("/", show_page), Route("/data.json", show_data)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
        ],
    )


def _server(app: "Starlette") -> "uvicorn.Server":
    """Return a server that ends soon after Ctrl-C, though a client may have stopped reading."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # A client that is cut off is no error.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    return Server(config)


def _security_headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": f"{content_policy()}; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1."""

    if not 0 <= port <= 65535:
        raise InputError(f"port must be 0 to 65535, got {port}")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(f"cannot serve on {HOST}:{port}: {error.strerror or error}") from error
    return listener
