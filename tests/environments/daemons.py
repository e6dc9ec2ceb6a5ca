"""A Docker daemon that is played: a Unix socket, and an answer to each request as the test wants it."""

import contextlib
import json
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Gets the connection and the request's body, writes what it likes; the connection is closed after it.
Answer = Callable[[socket.socket, bytes], None]


def says(body: Any = None, status: int = 200) -> Answer:
    """Answer with ``body`` as JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    return raw(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)


def raw(content: bytes) -> Answer:
    def answer(connection: socket.socket, body: bytes) -> None:
        connection.sendall(content)

    return answer


def hang(connection: socket.socket, body: bytes) -> None:
    """Say nothing until the client gives up."""
    while connection.recv(4096):
        pass


class Daemon:
    """Answers by the first pattern that ``METHOD /path`` matches; ``asked`` holds all requests, ``bodies`` theirs."""

    def __init__(self, path: Path, answers: dict[str, Answer]) -> None:
        self.path, self.answers = path, answers
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(16)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            line, body = self._request(connection)
            self.asked.append(line)
            self.bodies.append(body)
            found = next((answer for pattern, answer in self.answers.items() if re.match(pattern, line)), None)
            (found or says({"message": f"played daemon: {line}"}, 404))(connection, body)

    def _request(self, connection: socket.socket) -> tuple[str, bytes]:
        content = b""
        while b"\r\n\r\n" not in content:
            content += connection.recv(65536)
        head, _, body = content.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
        while b"chunked" in head and not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return " ".join(head.decode().split()[:2]), body

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


@contextlib.contextmanager
def daemon(answers: dict[str, Answer]) -> Iterator[Daemon]:
    """Yield a daemon on a socket of its own, whose path is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="benchbox-d-") as folder:
        played = Daemon(Path(folder) / "s", answers)
        try:
            yield played
        finally:
            played.close()
