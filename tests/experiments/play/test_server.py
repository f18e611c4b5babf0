"""The server's door: other hosts and other sites' pages are refused; one line for a taken port."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.play import Config
from experiments.play.server import LocalOnly


def answer(**headers: str) -> tuple[int, dict[bytes, bytes]]:
    """The status and the headers that a request with these headers gets."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(LocalOnly(app, 7860)({"type": "http", "headers": given}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860"])
def test_its_own_page_is_answered_and_may_load_nothing_from_elsewhere(host: str) -> None:
    for more in ({}, {"origin": f"http://{host}"}):
        status, headers = answer(host=host, **more)
        assert status == 200 and headers[b"a"] == b"b"
        assert headers[b"content-security-policy"].startswith(b"default-src 'self' ")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "attacker.example:7860"},
        {"host": "127.0.0.1:7861"},
        {"host": "127.0.0.1:7860", "origin": "http://attacker.example"},
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:1"},
    ],
)
def test_others_are_refused(headers: dict[str, str]) -> None:
    assert answer(**headers)[0] == 403


def test_a_taken_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["play", "--port", str(port), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --port: wanted a free port (") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert Config().run_pasted_code is False
