"""The host's ends of a guest's channels: it listens, QEMU connects, data is handed on as it comes."""

import contextlib
import selectors
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 64 * 1024

#: Called with (channel, data, at_ns).
Receiver = Callable[[str, bytes, int], None]


class Sockets:
    """One listening socket a channel, then the one connection that it accepts.

    Each is in ``selector`` with a callback as its data, to be called with the time at which it became readable.
    ``greetings`` are sent to whoever connects to a channel; QEMU hands them on when the guest opens its port.
    """

    def __init__(self, selector: selectors.BaseSelector, receive: Receiver, greetings: Mapping[str, bytes]) -> None:
        self._selector, self._receive, self._greetings = selector, receive, greetings
        self._open: dict[socket.socket, str] = {}
        self._connected: dict[str, socket.socket] = {}

    def listen(self, folder: Path, channels: Iterable[str]) -> None:
        """Make ``folder`` and listen on ``<channel>.sock`` in it."""
        folder.mkdir(mode=0o700)
        for channel in channels:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._add(listener, channel, self._accept)
            listener.bind(str(folder / f"{channel}.sock"))
            listener.listen(1)

    def send(self, channel: str, data: bytes) -> None:
        """Send ``data``, which is short; to a guest that has gone it is lost."""
        connection = self._connected.get(channel)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.send(data)

    def drain(self) -> None:
        """Take everything that has arrived; whoever sent it has gone."""
        for connection in self._connected.copy().values():
            while connection in self._open and self._read(connection, 0):
                pass

    def take(self, channel: str, at_ns: int) -> None:
        """Take what has arrived on ``channel`` now, as of ``at_ns``, and not when the selector gets to it."""
        connection = self._connected.get(channel)
        if connection is not None:
            self._read(connection, at_ns)

    def close(self) -> None:
        """Close all; safe to call again."""
        for sock in list(self._open):
            self._forget(sock)

    def _add(self, sock: socket.socket, channel: str, act: Callable[[socket.socket, int], object]) -> None:
        self._open[sock] = channel
        self._selector.register(sock, selectors.EVENT_READ, lambda at_ns: sock in self._open and act(sock, at_ns))

    def _accept(self, listener: socket.socket, at_ns: int) -> None:
        channel = self._open[listener]
        connection, _ = listener.accept()
        self._forget(listener)
        connection.setblocking(False)
        self._connected[channel] = connection
        self._add(connection, channel, self._read)
        self.send(channel, self._greetings.get(channel, b""))

    def _read(self, connection: socket.socket, at_ns: int) -> bool:
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if data:
            self._receive(self._open[connection], data, at_ns)
        else:
            self._connected.pop(self._open[connection], None)
            self._forget(connection)
        return bool(data)

    def _forget(self, sock: socket.socket) -> None:
        del self._open[sock]
        self._selector.unregister(sock)
        sock.close()
