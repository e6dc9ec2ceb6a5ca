"""Formats: what they need, how their tools end, what is said of them."""

import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchbox.environments import format as weighing
from benchbox.environments.format import ENVIRONMENT, Numbers, Options, ToolBox
from benchbox.errors import EnvironmentFailure
from benchbox.images import formats
from benchbox.images.formats import Package
from benchbox.model import EnvironmentSpec


def spec(**options: object) -> EnvironmentSpec:
    return EnvironmentSpec("format", "x", Options.model_validate(options).model_dump())


def tools(timeout_s: float = 30) -> ToolBox:
    return ToolBox(time.monotonic() + timeout_s, timeout_s)


def python(code: str) -> list[str | Path]:
    return [sys.executable, "-c", code]


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program once; a host that has all of them offers the format."""
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "mksquashfs" else f"/usr/bin/{name}")
    offer = ENVIRONMENT.check(spec(format="squashfs"))
    assert (offer.available, offer.reason) == (False, "not installed: mksquashfs")
    assert offer.fix == "Debian, Ubuntu: apt install squashfs-tools; Fedora: dnf install squashfs-tools"
    assert ENVIRONMENT.check(spec(format="erofs")).available


def test_packages_of_another_distribution_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are packages that are not installed, each named."""
    found = {"runc": Package("runc", 5)}
    monkeypatch.setattr(weighing, "_installed", lambda: found)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/dpkg-query")
    assert ENVIRONMENT.check(spec(format="installed", packages=["runc"])).available
    offer = ENVIRONMENT.check(spec(format="installed", packages=["runc", "qemu"]))
    assert (offer.reason, offer.fix) == ("not installed from packages: qemu", "Debian, Ubuntu: apt install qemu")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert ENVIRONMENT.check(spec(format="installed", packages=["runc"])).reason == (
        "this host's packages are not dpkg's"
    )


@pytest.mark.parametrize(
    "given", [{"format": "installed"}, {"format": "ext4", "packages": ["runc"]}, {"format": "zip"}]
)
def test_options_that_make_no_sense_are_refused(given: dict[str, object]) -> None:
    """Packages belong to what is installed, and there must be some."""
    with pytest.raises(ValidationError):
        Options.model_validate(given)


def test_what_a_tool_writes_is_counted() -> None:
    """However much it is fed and writes."""
    echo = python("import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)")
    assert tools().count(echo, lambda output: output.write(b"x" * 3_000_000)) == 3_000_000


def test_a_tool_that_fails_says_why() -> None:
    """With its status and the end of what it printed; one that reads nothing ends as well."""
    with pytest.raises(EnvironmentFailure, match="exit status 3: no space"):
        tools().run(python("import sys; print('no space'); sys.exit(3)"))
    with pytest.raises(EnvironmentFailure, match="exit status 4: broken"):
        tools().count(
            python("import sys; print('broken', file=sys.stderr); sys.exit(4)"),
            lambda output: output.write(b"x" * 1_000_000),
        )


def test_a_tool_that_hangs_ends_at_the_deadline() -> None:
    """And is gone then."""
    begun_s = time.monotonic()
    with pytest.raises(EnvironmentFailure, match=r"not done after 0\.2 s, killed"):
        tools(0.2).run(python("import time; time.sleep(60)"))
    assert time.monotonic() - begun_s < 20


def test_a_tool_can_be_ended_at_any_time() -> None:
    """Ctrl-C does not wait for it."""
    box = tools()
    threading.Timer(0.1, box.stop).start()
    with pytest.raises(EnvironmentFailure, match="ended by benchbox"):
        box.run(python("import time; time.sleep(60)"))


def test_what_others_need_is_not_counted_as_there_for_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sums: the packages, what is there for nothing else, and all of it."""
    packages = {
        "vm": Package("vm", 100, (("own",), ("shared",))),
        "own": Package("own", 20),
        "shared": Package("shared", 3),
        "other": Package("other", 1000, (("shared",),)),
    }
    monkeypatch.setattr(weighing, "_installed", lambda: packages)
    numbers = Numbers()
    weighing._weigh_packages(["vm"], numbers)
    assert {name: value for name, (value, _) in numbers.sizes.items()} == {
        "size.apparent": 100, "size.allocated": 120, "size.with_shared": 123, "size.part.packages": 120,
    }  # fmt: skip
    assert formats.only_needed(packages, ["vm"]) == {"vm", "own"}


def test_instances_that_cannot_be_made_here_are_said() -> None:
    """No number stands in for them; those that can are added up."""
    numbers = Numbers()
    weighing._add_instances(20, numbers, "it needs root here")
    assert (numbers.sizes, numbers.told) == ({}, {"instances_not_measured": "it needs root here"})
