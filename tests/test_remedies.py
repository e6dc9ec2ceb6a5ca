"""Which package has a program that a host may lack."""

import re

import pytest

from benchbox import remedies
from benchbox.images import formats
from benchbox.model import SystemPackage


def test_a_hint_says_how_each_family_of_distributions_installs_it() -> None:
    """By that family's own name; several programs of one package are one word."""
    offer = remedies.lacking("why", ["qemu-img", "qemu-io", "mke2fs"])
    assert (offer.available, offer.reason) == (False, "why")
    assert offer.fix == "Debian, Ubuntu: apt install qemu-utils e2fsprogs; Fedora: dnf install qemu-img e2fsprogs"
    assert [package.debian for package in offer.packages] == ["qemu-utils", "e2fsprogs"]


def test_what_a_family_does_not_have_is_not_said_of_it() -> None:
    """Images of the distribution's packages are Debian's."""
    assert remedies.lacking("why", ["mmdebstrap"]).fix == "Debian, Ubuntu: apt install mmdebstrap"


def test_another_way_is_said_beside_the_package() -> None:
    """And alone where no package is known: nothing is installed then."""
    assert remedies.lacking("why", ["crun"], otherwise="take another").fix == (
        "Debian, Ubuntu: apt install crun; Fedora: dnf install crun, or take another"
    )
    unknown = remedies.lacking("why", ["youki"], otherwise="take another")
    assert (unknown.fix, unknown.packages) == ("take another", ())
    assert remedies.lacking("why", ["youki"]).fix == "install youki"


def test_no_container_engine_is_ever_installed() -> None:
    """It starts a daemon and changes the host's network: its owner's choice."""
    names = {name for package in remedies.PACKAGES.values() for name in (package.debian, package.fedora) if name}
    assert not any(re.search("docker|moby|containerd|podman", name) for name in names)
    assert remedies.called(["docker.io", "runc", "--reinstall", "x=1"]) == (SystemPackage("runc", "runc"),)


def test_every_name_is_one_word_that_apt_cannot_take_for_an_option() -> None:
    """They become arguments of a command that root runs."""
    for package in remedies.PACKAGES.values():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", package.debian)


@pytest.mark.parametrize("program", sorted({program for needed in formats.NEEDS.values() for program in needed}))
def test_each_program_that_makes_a_format_has_a_package(program: str) -> None:
    """So that no format is skipped on a fresh machine."""
    assert program in remedies.PACKAGES
