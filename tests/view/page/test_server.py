import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from wirework.errors import InputError
from wirework.view import load_page_data, render_page, serve

CODE = "import sys; from pathlib import Path; from wirework.view import serve; "
CODE += "serve(Path(sys.argv[1]))"


@pytest.fixture
def server(circuit: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real server in a process of its own, and its address."""
    command = [sys.executable, "-c", CODE, str(circuit)]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def get(address: str, path: str, host: str | None = None) -> tuple[int, Message, bytes]:
    """Status, headers and body of one request, under another Host than the address's if given."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": host} if host else {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def test_server_end_to_end(server: tuple[subprocess.Popen[str], str], circuit: Path) -> None:
    process, address = server
    assert urlsplit(address).hostname == "127.0.0.1"
    data = load_page_data(circuit)

    status, headers, page = get(address, "/")
    assert status == 200
    assert page.decode() == render_page(data)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers

    assert json.loads(get(address, "/data.json")[2]) == data
    assert get(address, "/etc/passwd")[0] == 404

    port = urlsplit(address).port
    assert get(address, "/", host=f"localhost:{port}")[0] == 200
    for foreign in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
        for path in ("/", "/data.json"):
            status, _, body = get(address, path, host=foreign)
            assert status == 400, foreign
            assert b"wirework" not in body

    with pytest.raises(InputError, match=f"cannot serve on 127.0.0.1:{port}: Address already"):
        serve(circuit, port=port or 0)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""


def test_ctrl_c_ends_it_though_a_client_has_stopped_reading(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = server
    with socket.create_connection(("127.0.0.1", urlsplit(address).port)) as client:
        # More than the buffers of both ends hold.
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        client.recv(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""


def test_only_this_machine_can_connect(server: tuple[subprocess.Popen[str], str]) -> None:
    _, address = server
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", urlsplit(address).port), 5):
        pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range(circuit: Path, port: int) -> None:
    with pytest.raises(InputError, match=f"port must be 0 to 65535, got {port}"):
        serve(circuit, port=port)


def test_a_bad_folder_is_refused_before_anything_listens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no circuit at"):
        serve(tmp_path)
