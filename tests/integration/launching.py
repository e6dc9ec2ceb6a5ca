"""``launch`` by hand: its program, a root to launch in, and what it reported."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchbox import images, native
from benchbox.linux import cgroups
from benchbox.linux.launch import Report, parse_report

#: Another build of it, with sanitizers for example, may stand in.
PROGRAM = Path(os.environ.get("BENCHBOX_TEST_LAUNCH") or native.program("launch"))
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Launched:
    """How ``launch`` ended (negative: by a signal), what was printed, and its report where one was asked for."""

    status: int
    out: str
    err: str
    report: Report | None = None


def arguments(*words: str | Path) -> list[str]:
    """Return the command line of ``launch`` with ``words``."""
    return [str(PROGRAM), *map(str, words)]


def launch(*words: str | Path, stdin: Any = subprocess.DEVNULL, env: Mapping[str, str] | None = None,
           pass_fds: Iterable[int] = ()) -> Launched:  # fmt: skip
    """Run ``launch`` with ``words`` to its end."""
    done = subprocess.run(
        arguments(*words),
        stdin=stdin,
        capture_output=True,
        timeout=_TIMEOUT_S,
        env=env,
        pass_fds=tuple(pass_fds),
        check=False,
    )
    return Launched(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def reported(*words: str | Path, pass_fds: Iterable[int] = ()) -> Launched:
    """Run ``launch --report`` with ``words`` to its end."""
    reader, writer = os.pipe()
    try:
        done = launch("--report", str(writer), *words, pass_fds=(writer, *pass_fds))
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        return Launched(done.status, done.out, done.err, parse_report(stream.read()))


def group(name: str, version: int = 2) -> Path:
    """Return where a cgroup of ours may be made: in the v2 tree, or in a v1 hierarchy."""
    layout = cgroups.detect()
    root = layout.v2 if version == 2 else layout.v1.get("pids")
    if root is None:
        pytest.skip(f"this host has no cgroup v{version} hierarchy for it")
    return root / f"benchbox-test-{os.getpid()}-{name}"


def copy_of_image(folder: Path) -> Path:
    """Return a copy of the image ``minimal`` that a test may change."""
    return Path(shutil.copytree(images.open_image("minimal").root, folder / "image", symlinks=True))


def shell(script: str) -> tuple[str, ...]:
    """Return the words that run ``script`` in the image's shell."""
    return ("--", "/bin/busybox", "sh", "-c", script)
