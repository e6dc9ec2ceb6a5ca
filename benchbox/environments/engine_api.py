"""A small client of the Docker Engine API, on http.client over the daemon's socket.

Only what a sample needs, so that the measuring process stays small and knows what it waits for: each answer has a
deadline and a size, the output of a container is read as it comes, and what waits (for a start, for an end) is a
descriptor to poll. Paths carry no version, so the daemon speaks its newest.

Source: https://docs.docker.com/engine/api/ (v1.41 and later).
"""

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

from benchbox.errors import EnvironmentFailure

#: Put on everything that a run makes, its value names the run.
RUN_LABEL: Final = "benchbox.run"
#: How long the daemon may take to answer what it can answer at once, and to import an image.
TIMEOUT_S: Final = 15.0
IMPORT_TIMEOUT_S: Final = 600.0
#: benchbox never installs an engine: it would change the host's network and leave a daemon running.
_NO_DAEMON: Final = (
    "start it (systemctl start docker), or install an engine first "
    "(Debian, Ubuntu: apt install docker.io; Fedora: dnf install moby-engine)"
)
_LARGEST_ANSWER_BYTES: Final = 4 << 20
_READ_BYTES: Final = 64 * 1024
_QUIET_LOOKS: Final = 2
_LOOK_AGAIN_S: Final = 0.1


class EngineError(EnvironmentFailure):
    """The daemon refused, did not answer, or what it answered makes no sense; ``status`` is what HTTP said, or None."""

    def __init__(self, message: str, *, status: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a daemon into one kind of error that says which daemon."""
    try:
        yield
    except EngineError:
        raise
    except TimeoutError as error:
        raise EngineError(f"{path}: the daemon does not answer", hint="look why it hangs, or restart it") from error
    except ConnectionResetError as error:
        raise EngineError(f"{path}: the daemon closed the connection", hint="look at its log: did it crash?") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise EngineError(f"{path}: no daemon listens there", hint=_NO_DAEMON) from error
    except PermissionError as error:
        raise EngineError(f"{path}: no permission to use it", hint="run benchbox as root") from error
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        what = f"{type(error).__name__} {error}".strip()[:200]
        raise EngineError(f"{path}: the daemon answers nonsense ({what})", hint="is it a Docker daemon?") from error


class Exchange:
    """One request on a connection of its own, whose answer may take its time: poll ``fileno`` for it."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._connection = _Connection(path, timeout_s)
        self._response: http.client.HTTPResponse | None = None

    def send(
        self, method: str, target: str, body: "Mapping[str, Any] | BinaryIO | None" = None, **headers: str
    ) -> "Exchange":
        with _named(self._path):
            content = json.dumps(body).encode() if isinstance(body, Mapping) else body
            kind = {"Content-Type": "application/json" if isinstance(body, Mapping) else "application/x-tar"}
            self._connection.request(method, target, content, {**(kind if body is not None else {}), **headers})
            self._descriptor = self._connection.sock.fileno()
        return self

    def fileno(self) -> int:
        return self._descriptor

    def head(self) -> "Exchange":
        """Wait for the head of the answer. Raises EngineError with the daemon's own words if it refuses."""
        with _named(self._path):
            self._response = self._connection.getresponse()
            if self._response.status >= 400:
                raise EngineError(self._refusal(self._response.status), status=self._response.status)
        return self

    def read_some(self) -> bytes:
        """Return what has come of the body; empty at its end."""
        with _named(self._path):
            assert self._response and self._response.fp
            return bytes(self._response.fp.read1(_READ_BYTES))

    def whole(self) -> bytes:
        """Return the whole body."""
        if self._response is None:
            self.head()
        with _named(self._path):
            assert self._response
            content = self._response.read(_LARGEST_ANSWER_BYTES + 1)
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise ValueError(f"more than {_LARGEST_ANSWER_BYTES >> 20} MiB")
            if self._response.length:
                raise ValueError("cut short")
            return content

    def json(self) -> Any:
        """Return the whole body as JSON, None for an empty one."""
        content = self.whole()
        with _named(self._path):
            return json.loads(content) if content.strip() else None

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def _refusal(self, status: int) -> str:
        content = self.whole()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(content)["message"]).strip()[:2000]
        return f"{self._path}: the daemon refuses with status {status}"


@dataclass(frozen=True)
class Engine:
    """The daemon behind the socket ``path``. Every method raises EngineError."""

    path: Path
    timeout_s: float = TIMEOUT_S

    def begin(self, method: str, target: str, body: Mapping[str, Any] | None = None, **headers: str) -> Exchange:
        """Send a request whose answer is not waited for; the caller closes it."""
        exchange = Exchange(self.path, self.timeout_s)
        try:
            return exchange.send(method, target, body, **headers)
        except EngineError:
            exchange.close()
            raise

    def ask(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the daemon's answer as JSON."""
        with contextlib.closing(self.begin(method, target, body)) as exchange:
            return exchange.json()

    def info(self) -> dict[str, Any]:
        """Return what the daemon says of itself and its host."""
        found = self.ask("GET", "/info")
        if not isinstance(found, dict):
            raise EngineError(f"{self.path}: the daemon answers nonsense (its info is no object)")
        return found

    def ping(self) -> None:
        with contextlib.closing(self.begin("GET", "/_ping")) as exchange:
            exchange.whole()

    def has_image(self, tag: str) -> bool:
        try:
            self.ask("GET", f"/images/{quote(tag)}/json")
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    def import_image(self, repository: str, tag: str, archive: BinaryIO) -> None:
        """Make the image ``repository:tag`` of a tar archive of a root file system."""
        query = urlencode({"fromSrc": "-", "repo": repository, "tag": tag})
        with contextlib.closing(Exchange(self.path, IMPORT_TIMEOUT_S)) as exchange:
            progress = exchange.send("POST", f"/images/create?{query}", archive).whole()
        # It says 200 before it begins; what goes wrong then is in the lines that follow.
        for line in progress.splitlines():
            with contextlib.suppress(ValueError, AttributeError):
                if message := json.loads(line).get("error"):
                    raise EngineError(f"cannot import the image: {message}")

    def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Make a container and return its id."""
        found = self.ask("POST", f"/containers/create?{urlencode({'name': name})}", config)
        if not isinstance(found, dict) or not isinstance(found.get("Id"), str):
            raise EngineError(f"{self.path}: the daemon answers nonsense (a container without an id)")
        return str(found["Id"])

    def kill(self, container: str) -> None:
        """Kill it; one that does not run is no error."""
        self._unless_gone("POST", f"/containers/{quote(container)}/kill")

    def remove(self, container: str) -> None:
        """Kill it if it runs, and remove it; one that is not there is no error."""
        self._unless_gone("DELETE", f"/containers/{quote(container)}?force=1&v=1")

    def _unless_gone(self, method: str, target: str) -> None:
        try:
            self.ask(method, target)
        except EngineError as error:
            if error.status not in (404, 409):  # 409: it does not run; or it is being removed already
                raise

    def inspect(self, container: str) -> dict[str, Any]:
        found = self.ask("GET", f"/containers/{quote(container)}/json")
        if not isinstance(found, dict):
            raise EngineError(f"{self.path}: the daemon answers nonsense (a container that is no object)")
        return found

    def containers(self, run: str) -> list[str]:
        """Return the ids of the containers of ``run``, those that do not run included."""
        filters = json.dumps({"label": [f"{RUN_LABEL}={run}"]})
        found = self.ask("GET", f"/containers/json?{urlencode({'all': 1, 'filters': filters})}")
        with _named(self.path):
            try:
                return [str(item["Id"]) for item in found]
            except (TypeError, KeyError) as error:
                raise ValueError(f"a list of containers without ids: {error}") from error

    def remove_all(self, run: str) -> list[str]:
        """Remove every container of ``run`` and return their ids.

        Until none was there twice in a row: a request that the daemon had accepted before may still come true.
        """
        removed: list[str] = []
        quiet = 0
        while quiet < _QUIET_LOOKS:
            found = self.containers(run)
            for container in found:
                self.remove(container)
            removed += found
            quiet = 0 if found else quiet + 1
            if quiet < _QUIET_LOOKS:
                time.sleep(_LOOK_AGAIN_S)
        return removed


class Demultiplexer:
    """Takes the frames of a container's output apart: 8 bytes of head (stream, three zeros, length), then the bytes."""

    _HEAD: Final = struct.Struct(">BxxxL")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return the output in ``chunk``, of whatever stream. Raises ValueError for what is no frame."""
        output = bytearray()
        while chunk:
            if self._left:
                output += chunk[: self._left]
                taken = min(self._left, len(chunk))
                self._left, chunk = self._left - taken, chunk[taken:]
                continue
            missing = self._HEAD.size - len(self._head)
            self._head, chunk = self._head + chunk[:missing], chunk[missing:]
            if len(self._head) == self._HEAD.size:
                self._begin(self._head)
        return bytes(output)

    def _begin(self, head: bytes) -> None:
        stream, self._left = self._HEAD.unpack(head)
        if stream > 2 or any(head[1:4]):
            raise ValueError(f"no frame of output begins with {head.hex()}")
        self._head = b""
