"""A headless Chromium for tests, driven through the DevTools protocol over a pipe: no port, no driver, no package."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

EXECUTABLE: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_OPTIONS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--hide-scrollbars", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip

#: Chromium reads commands from descriptor 3 and writes answers to 4. Copies above 10 come first, lest one
#: overwrites the other.
_LAUNCHER: Final = """
import fcntl, os, sys
read, write = fcntl.fcntl({0}, fcntl.F_DUPFD, 10), fcntl.fcntl({1}, fcntl.F_DUPFD, 10)
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Browser:
    """One tab. ``problems`` are console errors, exceptions and failed loads, ``requests`` every address asked for."""

    commands: int
    answers: int
    session: str = ""
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _last: int = 0

    def open(self, path: Path, width: int = 1400, height: int = 1000, timeout_s: float = 60) -> None:
        """Open a page and wait until it says that its figures are drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.absolute().as_uri())
        deadline = time.monotonic() + timeout_s
        while not self.evaluate("document.documentElement?.dataset.drawn !== undefined"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} has not drawn its figures in {timeout_s} s: {self.problems}")
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, out: Path) -> None:
        """Write the whole page, not only what fits the window, as PNG."""
        height = self.evaluate("document.documentElement.scrollHeight")
        width = self.evaluate("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, take in events until its answer comes, and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        _write_all(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._take(answer)

    def attach(self) -> None:
        """Make a tab and listen to all it says."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self.answers, 1 << 20)
            if not chunk:
                raise AssertionError("the browser has ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.loadingFailed":
                self.problems.append(f"load failed: {params['errorText']}")
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert", "warning"):
                self.problems.append(f"console: {params['args']}")
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"log: {params['entry']['text']}")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a fresh profile; it and its profile are gone afterwards."""
    assert EXECUTABLE is not None
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    launcher = _LAUNCHER.format(command_read, answer_write)
    with tempfile.TemporaryDirectory(prefix="bb-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [sys.executable, "-c", launcher, EXECUTABLE, *_OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(command_read, answer_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(answer_write)
        try:
            tab = Browser(command_write, answer_read)
            tab.attach()
            yield tab
            with contextlib.suppress(AssertionError, OSError):
                tab.session = ""
                tab.call("Browser.close")
        finally:
            os.close(command_write)
            os.close(answer_read)
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
