"""The distribution's kernel boots the initramfs that benchbox derives from the image minimal."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox import images
from benchbox.errors import ImageError
from benchbox.images.kernels import GuestKernel
from benchbox.model import Availability
from tests.conftest import skip_unless_available

pytestmark = pytest.mark.integration

QEMU = "qemu-system-x86_64"

#: The first process of the test's guest: loads the modules, runs the ready program in the image, powers off.
INIT = """#!/image/bin/busybox sh
busybox=/image/bin/busybox
$busybox mount -t proc proc /proc
for module in /modules/*; do $busybox insmod $module || echo "not loaded: $module"; done
echo "modules:" $($busybox cut -d' ' -f1 /proc/modules)
echo "ready:" $(BENCHBOX_READY=1 $busybox chroot /image /bin/ready)
$busybox poweroff -f
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestKernel]:
    """The distribution's kernel, downloaded into a store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCHBOX_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            found = images.find_kernel("distribution")
        except ImageError as error:
            skip_unless_available("vm", Availability.no(error.message, str(error.hint)))
        yield found


def boot(kernel: Path, initramfs: Path) -> str:
    argv = [
        QEMU, "-machine", "q35", "-accel", "tcg", "-m", "256", "-nographic", "-no-reboot", "-nodefaults",
        "-serial", "stdio", "-device", "virtio-serial", "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", "console=ttyS0 quiet panic=-1",
    ]  # fmt: skip
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True)
    return done.stdout.decode(errors="replace")


def test_the_distribution_s_kernel_is_described_by_what_it_says_itself(kernel: GuestKernel) -> None:
    """Its release is that of its package."""
    assert kernel.source == "distribution"
    assert kernel.package == f"linux-image-{kernel.release}"
    assert str(kernel.package_version) in kernel.version
    assert kernel.original.stat().st_size < kernel.path.stat().st_size


@pytest.mark.parametrize("form", ["unpacked", "original"])
def test_a_guest_boots_loads_its_modules_and_runs_the_workload(
    kernel: GuestKernel, tmp_path: Path, need: Callable[[str, Availability], None], form: str
) -> None:
    """From the unpacked kernel as from the one that was downloaded."""
    need("vm", Availability(shutil.which(QEMU) is not None, f"no {QEMU}", "install qemu-system-x86"))
    image = images.open_image("minimal")
    has_busybox = "/bin/busybox" in image.executables
    need("vm", Availability(has_busybox, "no static busybox to test with", "install busybox-static"))
    (tmp_path / "init").write_text(INIT)
    initramfs = images.derive_initramfs(image, kernel, tmp_path / "init")
    console = boot(kernel.path if form == "unpacked" else kernel.original, initramfs)
    assert "not loaded" not in console, console
    loaded = console.partition("modules:")[2].partition("\n")[0].split()
    assert {"virtio_pci", "virtio_console"} <= set(loaded)
    assert "ready: !" in console
