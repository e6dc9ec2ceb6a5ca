"""The distribution's kernel package is resolved, downloaded, unpacked and kept, and never installed."""

import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchbox.errors import EnvironmentFailure, ImageError
from benchbox.images import packages
from benchbox.linux.processes import Completed

#: Shortened from ``apt-cache show`` on Debian 12 and Ubuntu 24.04.
DEBIAN = """Package: linux-image-cloud-amd64
Version: 6.1.148-1
Depends: linux-image-6.1.0-39-cloud-amd64 (= 6.1.148-1)
Description: Linux for x86-64 cloud (meta-package)
"""
UBUNTU = """Package: linux-image-6.8.0-79-generic
Version: 6.8.0-79.79
Depends: kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-6.8.0-79-generic:amd64
Recommends: grub-pc | grub-efi-amd64, linux-image-other
"""
CONCRETE = (
    "Package: linux-image-6.1.0-39-cloud-amd64\nVersion: 6.1.148-1\nDepends: kmod, initramfs-tools | linux-image-x\n"
)


class Apt:
    """Stands in for apt and dpkg-deb: a package archive with one kernel."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def run(self, argv: list[Any], *, cwd: Path | None = None, **_: Any) -> Completed:
        self.calls.append(" ".join(map(str, argv[:2])))
        output = ""
        if argv[0] == "apt-cache":
            output = DEBIAN if argv[-1] == "linux-image-cloud-amd64" else CONCRETE
        elif argv[0] == "apt-get":
            assert argv[2:] == ["linux-image-6.1.0-39-cloud-amd64=6.1.148-1"]
            assert cwd is not None
            (cwd / "linux-image.deb").write_text("")
        else:
            (argv[-1] / "boot").mkdir(parents=True)
            (argv[-1] / "boot/vmlinuz-6.1.0-39-cloud-amd64").write_text("kernel")
            (argv[-1] / "usr/lib/modules/6.1.0-39-cloud-amd64/kernel").mkdir(parents=True)
            (argv[-1] / "usr/share/doc").mkdir(parents=True)
        return Completed(tuple(map(str, argv)), 0, output, "")


@pytest.fixture(autouse=True)
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    archive = Apt()
    monkeypatch.setattr(packages, "run", archive.run)
    return archive


def test_the_parts_of_a_kernel_are_read_from_its_dependencies() -> None:
    """Recommendations, second choices and other packages do not count."""
    assert packages.kernel_dependencies(DEBIAN) == ("linux-image-6.1.0-39-cloud-amd64",)
    assert packages.kernel_dependencies(UBUNTU) == ("linux-modules-6.8.0-79-generic",)
    assert packages.kernel_dependencies(CONCRETE) == ()
    assert packages.kernel_dependencies("") == ()


def test_image_and_modules_are_kept_and_nothing_else(tmp_path: Path, apt: Apt) -> None:
    """Downloads and documentation are removed; the next run finds it without asking apt."""
    said: list[str] = []
    package = packages.kernel_package(said.append)
    assert (package.name, package.version) == ("linux-image-6.1.0-39-cloud-amd64", "6.1.148-1")
    assert package.image.read_text() == "kernel"
    assert package.modules_dir == package.image.parent / "modules"
    assert sorted(path.name for path in package.image.parent.iterdir()) == ["modules", "seal.json", "vmlinuz"]
    assert said == ["downloading a guest kernel: the distribution's package linux-image-cloud-amd64"]
    apt.calls.clear()
    assert packages.kernel_package(said.append) == package
    assert apt.calls == []


def test_a_damaged_package_is_downloaded_again(apt: Apt) -> None:
    """Its kernel is verified whenever it is asked for."""
    image = packages.kernel_package().image
    image.write_text("other")
    assert packages.kernel_package().image.read_text() == "kernel"
    (image.parent / "seal.json").write_text("[]")
    assert packages.kernel_package().version == "6.1.148-1"


def test_an_apt_that_fails_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And leaves nothing in the store."""

    def fail(*_: Any, **__: Any) -> Completed:
        raise EnvironmentFailure("apt-cache: no such program", hint="install apt-cache")

    monkeypatch.setattr(packages, "run", fail)
    with pytest.raises(ImageError, match="no guest kernel from the distribution: apt-cache: no such program") as caught:
        packages.kernel_package()
    assert "`kernel:`" in str(caught.value.hint)
    assert list((tmp_path / "cache/kernels").iterdir()) == []


def test_an_architecture_without_a_package_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users name a kernel themselves."""
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    with pytest.raises(ImageError, match="sparc64") as caught:
        packages.kernel_package()
    assert "`kernel:`" in str(caught.value.hint)


def test_a_kernel_is_cached_once_it_was_downloaded(apt: Apt) -> None:
    """Looking for it downloads nothing; a damaged one is as good as none."""
    assert packages.cached_image() is None
    assert apt.calls == []
    image = packages.kernel_package().image
    assert packages.cached_image() == image
    image.write_bytes(b"damaged")
    assert packages.cached_image() is None


def test_a_kernel_can_be_had_only_with_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an architecture that has a package, with the programs that fetch and unpack it."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert packages.obtainable().available
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert packages.obtainable().reason == "apt-get is not installed: no kernel can be downloaded"
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    assert packages.obtainable().reason == "no guest kernel package is known for s390x"
