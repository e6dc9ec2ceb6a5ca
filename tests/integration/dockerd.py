"""A Docker Engine of the tests' own: started on private paths, and all that it made removed after it.

It touches nothing of the host's network (no bridge, no packet filter) and keeps its data, state, process id and socket
in one folder. Its cgroups are those of its containers.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchbox.environments.engine_api import Engine, EngineError
from benchbox.linux import mounts, nest, processes

_STARTS_WITHIN_S: Final = 60.0
_ENDS_WITHIN_S: Final = 30.0
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_NETWORK: Final = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false")


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """Yield the socket of a daemon; where there is no dockerd, one that is not there, which the tests then say."""
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if program is None or os.geteuid() != 0:
        yield Path("/nonexistent/docker.sock")
        return
    with tempfile.TemporaryDirectory(prefix="peers-dockerd-", dir="/var/tmp") as name:
        folder = Path(name)
        daemon = _start(program, folder)
        try:
            _await(daemon, folder)
            yield folder / "socket"
        finally:
            _stop(daemon)
            _clean(folder)


def _start(program: str, folder: Path) -> "subprocess.Popen[bytes]":
    places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
    # What it mounts when it first needs it, and keeps, is no test's doing: none of it is in our mount namespace.
    words = ["unshare", "--mount", "--propagation", "slave", program]
    words += [*(word for option, name in places.items() for word in (option, str(folder / name)))]
    words += ["--host", f"unix://{folder / 'socket'}", "--exec-opt", "native.cgroupdriver=cgroupfs", *_NO_NETWORK]
    environment = {"PATH": _PATH, "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _await(daemon: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline and daemon.poll() is None:
        with contextlib.suppress(EngineError):
            Engine(folder / "socket", timeout_s=2.0).ping()
            return
        time.sleep(0.1)
    raise AssertionError("dockerd does not come up:\n" + (folder / "log").read_text(errors="replace")[-3000:])


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, which ends its containerd too; kill both if it does not."""
    below = processes.descendants(daemon.pid)
    daemon.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.wait(_ENDS_WITHIN_S)
    daemon.kill()
    daemon.wait()
    for pid in below:
        processes.end(pid)


def _clean(folder: Path) -> None:
    """Undo what it mounted, and its cgroup in every hierarchy if there is none of another daemon's in it."""
    text = Path("/proc/self/mountinfo").read_text()
    found = [line.split()[4] for line in text.splitlines() if line.split()[4].startswith(f"{folder}/")]
    for path in sorted(found, reverse=True):
        mounts.detach(Path(path))
    for mount in nest.find().mounts:
        with contextlib.suppress(OSError):
            (mount / "docker").rmdir()
