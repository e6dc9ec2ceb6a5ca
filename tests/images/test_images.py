"""Images by name, from the store, and what a guest boots from them."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchbox import images
from benchbox.errors import ImageError
from benchbox.images import minimal
from benchbox.images.kernels import GuestKernel
from tests.images.synthetic import module
from tests.images.test_cpio import parse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and stand-ins for the programs of the image minimal."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    for name in ("ready", "micro", "pingpong", "steady", "busybox"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(minimal, "program", lambda name: tmp_path / name)
    monkeypatch.setattr(minimal, "find_busybox", lambda: tmp_path / "busybox")
    return tmp_path / "cache"


@pytest.fixture
def kernel(tmp_path: Path) -> GuestKernel:
    """A kernel with one module that depends on another."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "virtio.ko").write_bytes(module())
    (folder / "virtio_pci.ko").write_bytes(module("virtio"))
    path = tmp_path / "vmlinuz"
    return GuestKernel(path, path, "path", "bzImage", "6.1", "6.1", "0" * 64, folder, same_as_host=False)


def test_an_image_is_opened_with_its_digest_and_the_sums_of_its_programs(cache: Path) -> None:
    """The same input has the same digest, and its place in the store is named by it."""
    image = images.open_image("minimal")
    assert image.root == cache / "store" / image.digest / "root"
    programs = ["/bin/busybox", "/bin/micro", "/bin/pingpong", "/bin/ready", "/bin/steady"]
    assert sorted(image.executables) == programs
    assert images.open_image("minimal") == image


def test_another_program_is_another_image(tmp_path: Path) -> None:
    """A new busybox never appears under an old digest."""
    old = images.open_image("minimal")
    (tmp_path / "busybox").write_text("newer")
    new = images.open_image("minimal")
    assert new.digest != old.digest
    assert ((old.root / "bin/sh").read_text(), (new.root / "bin/sh").read_text()) == ("busybox", "newer")


@pytest.mark.parametrize("damage", ["content", "extra", "missing", "mode"])
def test_an_image_that_is_not_as_it_was_made_is_made_again(damage: str) -> None:
    """Whatever was done to it in the store."""
    image = images.open_image("minimal")
    program = image.root / "bin/ready"
    if damage == "content":
        program.write_text("other")
    elif damage == "extra":
        (image.root / "etc/extra").write_text("")
    elif damage == "missing":
        program.unlink()
    else:
        program.chmod(0o700)
    assert images.open_image("minimal") == image
    assert program.read_text() == "ready"
    assert program.stat().st_mode & 0o777 == 0o755
    assert not (image.root / "etc/extra").exists()


def test_an_unknown_image_is_answered_with_the_nearest_and_all() -> None:
    """The remedy is in the message."""
    with pytest.raises(
        ImageError, match=r"no image 'minmal'; known are: copy-up, debian, debian-start, minimal"
    ) as caught:
        images.open_image("minmal")
    assert caught.value.hint == "did you mean 'minimal'?"
    with pytest.raises(ImageError, match="known are: copy-up, debian, debian-start, minimal"):
        images.open_image("../../etc")


def test_an_initramfs_holds_agent_modules_in_load_order_and_the_image(tmp_path: Path, kernel: GuestKernel) -> None:
    """As the agent expects them."""
    path = images.derive_initramfs(images.open_image("minimal"), kernel, tmp_path / "busybox", ["virtio_pci"])
    members = parse(path.read_bytes())
    assert members["init"][1] == b"busybox"
    assert members["init"][0][1] == 0o100755
    assert members["dev/console"][0][1] == 0o020600
    assert members["modules/00-virtio.ko"][1] == module()
    assert members["modules/01-virtio_pci.ko"][1] == module("virtio")
    assert members["image/bin/ready"][1] == b"ready"
    assert members["image/tmp"][0][1] == 0o041777
    assert {"dev", "proc", "sys", "tmp"} <= set(members)


def test_the_initramfs_of_a_disk_names_it_and_holds_no_image(tmp_path: Path, kernel: GuestKernel) -> None:
    """It is the same for every image."""
    path = images.derive_disk_initramfs(kernel, tmp_path / "busybox", "the-serial", ["virtio_pci"])
    members = parse(path.read_bytes())
    assert members["root-disk"][1] == b"the-serial"
    assert [name for name in members if name.startswith("image")] == ["image"]
    assert members["modules/01-virtio_pci.ko"][1] == module("virtio")
    whole = images.derive_initramfs(images.open_image("minimal"), kernel, tmp_path / "busybox", ["virtio_pci"])
    assert "root-disk" not in parse(whole.read_bytes())


def test_an_initramfs_is_derived_once_for_the_same_input(tmp_path: Path, kernel: GuestKernel) -> None:
    """And anew for another agent, kernel, module or image."""
    image = images.open_image("minimal")
    first = images.derive_initramfs(image, kernel, tmp_path / "busybox", ["virtio_pci"])
    written_ns = first.stat().st_mtime_ns
    assert images.derive_initramfs(image, kernel, tmp_path / "busybox", ["virtio_pci"]) == first
    assert first.stat().st_mtime_ns == written_ns
    others = [
        images.derive_initramfs(image, kernel, tmp_path / "ready", ["virtio_pci"]),
        images.derive_initramfs(image, kernel, tmp_path / "busybox", ["virtio"]),
        images.derive_initramfs(image, replace(kernel, sha256="1" * 64), tmp_path / "busybox", ["virtio_pci"]),
        images.derive_initramfs(replace(image, digest="other"), kernel, tmp_path / "busybox", ["virtio_pci"]),
    ]
    assert len({first, *others}) == 5


def test_a_damaged_initramfs_is_derived_again(tmp_path: Path, kernel: GuestKernel) -> None:
    """A guest never boots from it."""
    image = images.open_image("minimal")
    path = images.derive_initramfs(image, kernel, tmp_path / "busybox", ["virtio_pci"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert images.derive_initramfs(image, kernel, tmp_path / "busybox", ["virtio_pci"]) == path
    assert path.read_bytes() == whole


def test_a_kernel_without_a_modules_folder_needs_no_modules(tmp_path: Path, kernel: GuestKernel) -> None:
    """All that it needs is built in."""
    built_in = replace(kernel, modules_dir=None)
    path = images.derive_initramfs(images.open_image("minimal"), built_in, tmp_path / "busybox")
    assert not [name for name in parse(path.read_bytes()) if name.startswith("modules/")]
