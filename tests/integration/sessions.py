"""Sessions of real environments for tests: a workspace of their own, and a check that it is empty in the end."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchbox import images
from benchbox.environments import environment
from benchbox.linux import cgroups
from benchbox.model import Command, EnvironmentSpec, Image, LinkMaker, Outcome, Resources, Session, Workspace


class NoLedger:
    """For tests that clean up by themselves."""

    def record(self, kind: str, ident: str) -> None: ...

    def release(self, kind: str, ident: str) -> None: ...


@contextlib.contextmanager
def workspace(folder: Path, links: LinkMaker | None = None) -> Iterator[Workspace]:
    """Yield a workspace below ``folder``; its cgroups are removed in the end, its scratch folder must be empty."""
    scratch, runtime, name = folder / "scratch", folder / "runtime", f"benchbox-test-{os.getpid()}"
    scratch.mkdir()
    runtime.mkdir()
    allowed = tuple(sorted(os.sched_getaffinity(0)))
    try:
        yield Workspace("test", scratch, runtime, name, allowed[-1:], allowed[:1], NoLedger(), links)
    finally:
        for root in cgroups.detect().roots():
            cgroups.remove_tree(root / name)
    assert list(scratch.iterdir()) == []


@contextlib.contextmanager
def session(
    kind: str, folder: Path, resources: Resources | None = None, image: Image | None = None, **options: Any
) -> Iterator[Session]:
    """Yield a session of ``kind`` on the image ``minimal``, with its workspace below ``folder``."""
    spec = EnvironmentSpec(kind, kind, options)
    image = image or images.open_image("minimal")
    with (
        workspace(folder) as place,
        environment(kind).open(spec, image, resources or Resources(), place) as opened,
    ):
        yield opened


@contextlib.contextmanager
def linked_session(kind: str, folder: Path, links: LinkMaker) -> Iterator[Session]:
    """Yield a session of ``kind`` as ``session`` does, with a link to the bridge of ``links``."""
    spec, image = EnvironmentSpec(kind, kind, {"link": "bridge"}), images.open_image("minimal")
    with (
        workspace(folder, links) as place,
        environment(kind).open(spec, image, Resources(), place) as opened,
    ):
        yield opened


def shell(script: str, **changes: Any) -> Command:
    """Return the command that runs ``script`` in the image's shell; by default it does not say that it is ready."""
    return Command(("/bin/busybox", "sh", "-c", script), **{"signals_ready": False, "timeout_s": 10.0, **changes})


def run(opened: Session, command: Command) -> Outcome:
    """Run ``command`` to its end."""
    return opened.start(command).wait()


def output(opened: Session, script: str, *, serves: bool = False) -> str:
    """Return what ``script`` prints in the environment, as a server if it ``serves``; it must end well."""
    outcome = run(opened, shell(script, serves=serves))
    assert outcome.status == "ok", (outcome.reason, outcome.output_tail)
    return outcome.output_tail.decode()


def offset_s(outcome: Outcome, stage: str) -> float:
    """Return the time from the request to the end of ``stage``."""
    return (outcome.stages[stage] - outcome.requested_ns) / 1e9
