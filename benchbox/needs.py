"""Which packages of the distribution a scenario needs that this host lacks, and having them installed.

What an environment lacks is what its own ``check`` says, so that what is installed and what a skip's reason names are
the same. benchbox installs nothing itself: ``benchboxw`` does, where it may, when it is asked to.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchbox import images
from benchbox.environments import environment
from benchbox.errors import BenchboxError
from benchbox.model import Availability, EnvironmentSpec, SystemPackage
from benchbox.scenario import Scenario

#: The variable by which ``benchboxw`` says where it is.
WRAPPER: Final = "BENCHBOX_WRAPPER"
_NAMED: Final = 3
#: The descriptor of standard error.
_ERRORS: Final = 2


@dataclass(frozen=True)
class Need:
    """A package that is missing, and what of the scenario needs it: labels of environments, or the image."""

    package: SystemPackage
    by: tuple[str, ...]

    @property
    def purpose(self) -> str:
        """What needs it, in a few words."""
        more = len(self.by) - _NAMED
        return ", ".join(self.by[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def missing(scenario: Scenario) -> tuple[Need, ...]:
    """Return what this host lacks of packages that may be installed for ``scenario``; nothing is changed.

    Of what an environment lacks its ``check`` may tell the first thing only: the next shows once that is there. What
    has no package is for the run to say.
    """
    needed: dict[SystemPackage, list[str]] = {}
    for name, offer in _offers(scenario):
        for package in offer.packages:
            needed.setdefault(package, []).append(name)
    return tuple(Need(package, tuple(by)) for package, by in needed.items())


def _offers(scenario: Scenario) -> Iterator[tuple[str, Availability]]:
    questions = {f"image {scenario.image!s}": partial(images.availability, scenario.image)}
    questions |= {spec.label: partial(_check, spec) for spec in scenario.environments}
    for name, ask in questions.items():
        with contextlib.suppress(BenchboxError, OSError):  # the run says it
            yield name, ask()


def _check(spec: EnvironmentSpec) -> Availability:
    return environment(spec.kind).check(spec)


def provide(scenario: Scenario, wrapper: str | None) -> tuple[Need, ...]:
    """Have ``wrapper`` install what is missing, as far as it may and can; return what still is."""
    needs = missing(scenario)
    if not needs or wrapper is None:
        return needs
    words = [word for need in needs for word in (need.package.debian, need.purpose)]
    # What it says goes where errors go. On Ctrl-C it ends by itself, and takes with it what it made for apt.
    with (
        contextlib.suppress(OSError),
        subprocess.Popen([wrapper, "packages", *words], stdin=subprocess.DEVNULL, stdout=_ERRORS) as process,
    ):
        process.wait()
    return missing(scenario)


def told(needs: Sequence[Need]) -> str:
    """Return what is missing, for what, on one line."""
    return ", ".join(f"{_name(need.package)} ({need.purpose})" for need in needs)


def command(needs: Sequence[Need]) -> str:
    """Return the command that installs what is missing."""
    return f"{'dnf' if _is_fedora() else 'apt-get'} install {' '.join(_name(need.package) for need in needs)}"


def _name(package: SystemPackage) -> str:
    return (package.fedora if _is_fedora() else None) or package.debian


def _is_fedora() -> bool:
    return shutil.which("apt-get") is None and shutil.which("dnf") is not None
