"""Images of the user's own run natively, in a container and in a guest; a large image is on a guest's disk."""

import dataclasses
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import images
from benchbox.environments import environment
from benchbox.errors import ImageError
from benchbox.images import OwnImage, disk, distribution, oci, tree
from benchbox.linux.state import cache_folder
from benchbox.model import Availability, Command, EnvironmentSpec, Image, Outcome, Resources
from tests.conftest import skip_unless_available
from tests.integration import runs
from tests.integration.guests import reaping
from tests.integration.sessions import run, session

pytestmark = pytest.mark.integration

#: Environments by a name: the feature of this host that it needs, its kind and its options.
ENVIRONMENTS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "native": ("container", "native", {}),
    "container": ("container", "container", {}),
    "guest, in memory": ("vm", "vm", {"accelerator": "tcg", "root": "ram"}),
    "guest, on a disk": ("vm", "vm", {"accelerator": "tcg", "root": "disk"}),
}
RESOURCES: Final = Resources(cpus=1, memory_bytes=256 << 20, pids=64)
STARTUP: Final = Command(("/bin/ready",))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets of guests lie below it."""
    with tempfile.TemporaryDirectory(prefix="bb-") as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of the usual cache, images and what is derived from them in one of the test's own."""
    usual, own = cache_folder(), tmp_path_factory.mktemp("cache")
    images.find_kernel(None)
    for kind in ("kernels", "vmlinux", "libvirt", "emulator", "distribution"):
        if (usual / kind).is_dir():
            shutil.copytree(usual / kind, own / kind, symlinks=True)
    monkeypatch.setenv("BENCHBOX_CACHE", str(own))


def root_of(tmp_path: Path) -> Path:
    """Return a root file system without anything of benchbox: a busybox, a file that says whose it is."""
    root = tmp_path / "root"
    shutil.copytree(images.open_image("minimal").root, root, symlinks=True)
    for name in ("dev", "proc", "sys", "tmp", "data"):
        (root / name).rmdir()
    (root / "bin/ready").unlink()
    (root / "etc/mine").write_text("my own\n")
    return root


def own_images(tmp_path: Path) -> dict[str, OwnImage]:
    """Return the same root file system in each form."""
    root = root_of(tmp_path)
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz") as archive:
        archive.add(root, arcname=".")
    oci.write_layout(root, tmp_path / "layout")
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(tmp_path / "layout", arcname=".")
    return {
        "directory": OwnImage("directory", root),
        "tar": OwnImage("tar", tmp_path / "root.tar.gz"),
        "oci": OwnImage("oci", tmp_path / "layout"),
        "oci archive": OwnImage("oci", tmp_path / "image.tar"),
    }


def started(name: str, image: Image, folder: Path, *commands: Command) -> tuple[list[Outcome], dict[str, Any]]:
    """Run ``commands`` in an environment; return what came of them, and what the environment says of itself."""
    feature, kind, options = ENVIRONMENTS[name]
    skip_unless_available(feature, environment(kind).check(EnvironmentSpec(kind, kind, options)))
    if options.get("root") == "disk":
        skip_unless_available(feature, disk.availability())
    with reaping(), session(kind, folder, RESOURCES, image, **options) as found:
        return [run(found, command) for command in commands], dict(found.applied())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_image_of_one_s_own_runs_in_each_environment(name: str, tmp_path: Path, folder: Path) -> None:
    """From a folder, an archive and an OCI image, which are one image; what it lacked is there."""
    opened = {kind: images.open_image(source) for kind, source in own_images(tmp_path).items()}
    assert len({image.digest for image in opened.values()}) == 1
    image = opened["tar"]
    look = Command(("/bin/busybox", "cat", "/etc/mine"), signals_ready=False)
    (ready, looked), applied = started(name, image, folder, STARTUP, look)
    assert (ready.status, ready.reason) == ("ok", None) and "ready" in ready.stages
    assert (looked.status, looked.output_tail) == ("ok", b"my own\n"), looked.reason
    found = tree.scan(image.root)
    assert tree.digest(found, tree.file_sums(found)) == image.digest
    if name.startswith("guest"):
        where = "initramfs" if name.endswith("memory") else "ext4 disk (virtio, raw, cache none, read-only)"
        assert str(applied["root"]).startswith(where)
        assert (looked.applied["domain"]["root_disk"] or "initramfs") in str(applied["root"])


def test_a_root_on_a_disk_is_the_tree_and_cannot_be_written(folder: Path) -> None:
    """What a guest reads from the disk has the sums of the image; nothing of it changes, also beside another disk."""
    image = images.open_image("minimal")
    skip_unless_available("vm", environment("vm").check(EnvironmentSpec("vm", "vm")))
    skip_unless_available("vm", disk.availability())
    script = (
        "touch /x; rm /bin/ready; for f in /bin/busybox /etc/passwd; do cat $f | wc -c; done; mount | head -1; ls -a /"
    )
    command = Command(("/bin/busybox", "sh", "-c", script), signals_ready=False)
    with (
        reaping(),
        session("vm", folder, RESOURCES, image, accelerator="tcg", root="disk", disk=1 << 20, nic=True) as found,
    ):
        outcomes = [run(found, command) for _ in range(2)]
    for outcome in outcomes:
        assert outcome.status == "ok", outcome.reason
        text = outcome.output_tail.decode()
        assert text.count("Read-only file system") == 2
        sizes = [str((image.root / name).stat().st_size) for name in ("bin/busybox", "etc/passwd")]
        assert sizes == [line for line in text.splitlines() if line.isdecimal()]
        assert "lost+found" not in text and "/dev/root on / type ext4 (ro,nodev" in text
        assert outcome.applied["domain"]["extra_disks"] == ["virtio, raw, cache writeback"]
    path = images.derive_disk(image)
    assert path == Path(outcomes[0].applied["domain"]["root_disk_file"])


def test_a_disk_with_another_serial_or_none_ends_the_guest_with_a_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what it waited for, and powers off."""
    skip_unless_available("vm", environment("vm").check(EnvironmentSpec("vm", "vm")))
    skip_unless_available("vm", disk.availability())
    real = images.derive_disk_initramfs
    monkeypatch.setattr(
        images, "derive_disk_initramfs", lambda kernel, agent, serial, needed: real(kernel, agent, "other", needed)
    )
    image = images.open_image("minimal")
    with reaping(), session("vm", folder, RESOURCES, image, accelerator="tcg", root="disk") as found:
        outcome = run(found, STARTUP)
    assert outcome.status == "failed"
    assert "no disk with the image" in f"{outcome.reason} {outcome.console_tail}"


def test_a_run_with_an_image_of_one_s_own(tmp_path: Path) -> None:
    """The record says which, by name and digest; ``image list`` and ``rm`` know it."""
    skip_unless_available("container", environment("container").check(EnvironmentSpec("container", "container")))
    source = own_images(tmp_path)["tar"]
    file = runs.scenario(tmp_path, image=source.written(), rounds=1, environments=["native", "container"])
    status, _, err = runs.benchbox(tmp_path, "run", file)
    assert status == 0, err
    assert "image tar-root: added /dev, /proc, /sys, /tmp, /data, /bin/ready" in err
    manifest, samples = runs.read(tmp_path)
    assert manifest.image is not None and manifest.image.name == "tar-root"
    assert {sample.status for sample in samples} == {"ok"}
    assert manifest.scenario["image"] == {"tar": str(source.path)}
    assert "tar-root" in runs.benchbox(tmp_path, "image", "list")[1]
    assert runs.benchbox(tmp_path, "show", "latest")[0] == 0
    assert runs.benchbox(tmp_path, "image", "rm", "tar-root")[0] == 0
    assert "tar-root" not in runs.benchbox(tmp_path, "image", "list")[1]


def test_an_archive_that_is_refused_ends_the_run_before_anything_starts(tmp_path: Path) -> None:
    """With its name, the entry and the reason."""
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        info = tarfile.TarInfo("../evil")
        archive.addfile(info)
    file = runs.scenario(tmp_path, image={"tar": str(tmp_path / "evil.tar")}, environments=["native"])
    status, _, err = runs.benchbox(tmp_path, "run", file)
    assert status == 2
    assert f"{tmp_path}/evil.tar: entry '../evil': its path leads upwards (..)" in err
    assert not (tmp_path.parent / "evil").exists()


# ---- debian ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def debian(need: Callable[[str, Availability], None]) -> Image:
    """The image, from the usual cache's packages or made now; skipped where there is no mirror."""
    need("debian", distribution.availability())
    try:
        return images.open_image("debian")
    except ImageError as error:
        need("debian", Availability.no(error.message, str(error.hint)))
        raise


def test_each_tool_of_debian_starts_in_each_environment(debian: Image, folder: Path) -> None:
    """A guest has it on a disk by itself; all of them say their version."""
    script = """set -e
fio --version; sysbench --version; stress-ng --version; iperf3 --version | head -1; sockperf --version 2>&1 | head -1
redis-server --version; redis-benchmark --version; nginx -v 2>&1; wrk --version 2>&1 | head -1 || :
openssl version; zstd --version; sqlite3 --version; python3 -c 'import json, sys; print(sys.version)'
ip -V; ps --version
"""
    command = Command(("/bin/sh", "-c", script), signals_ready=False, timeout_s=120)
    for number, (name, options) in enumerate({"native": {}, "container": {}, "vm": {"accelerator": "tcg"}}.items()):
        feature = "vm" if name == "vm" else "container"
        skip_unless_available(feature, environment(name).check(EnvironmentSpec(name, name, options)))
        (place := folder / str(number)).mkdir()
        with reaping(), session(name, place, RESOURCES, debian, **options) as found:
            outcome = run(found, command)
            applied = found.applied()
        assert outcome.status == "ok", (name, outcome.reason, outcome.output_tail)
        assert len(outcome.output_tail.splitlines()) >= 15
    assert str(applied["root"]).startswith("ext4 disk")


def test_a_list_of_packages_is_an_image(need: Callable[[str, Availability], None], tmp_path: Path) -> None:
    """Of what they need as well, with benchbox's programs; the same list is the same image."""
    need("debian", distribution.availability())
    need("container", environment("native").check(EnvironmentSpec("native", "native")))
    source = OwnImage("packages", packages=("zstd",))
    try:
        image = images.open_image(source)
    except ImageError as error:
        need("debian", Availability.no(error.message, str(error.hint)))
        raise
    assert images.open_image(dataclasses.replace(source)) == image
    with session("native", tmp_path, RESOURCES, image) as found:
        outcome = run(found, Command(("/usr/bin/zstd", "--version"), signals_ready=False))
    assert outcome.status == "ok" and b"Zstandard" in outcome.output_tail
