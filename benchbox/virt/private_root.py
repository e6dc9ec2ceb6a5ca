"""The folders that libvirt's embedded driver and its emulator need.

``qemu:///embed?root=DIR`` (libvirt 6.1) keeps all its state below DIR, reads ``DIR/etc/qemu.conf`` and needs no daemon.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

from benchbox.errors import EnvironmentFailure
from benchbox.linux import trust
from benchbox.linux.state import make_folder

#: QEMU as root without a security driver, namespaces and cgroups of libvirt's own: the guest is the user's own image,
#: QEMU is in a cgroup of benchbox and connects to sockets that only root can open. Confining it as a distribution does
#: would need files given away to another user, and where that user cannot open /dev/kvm libvirt finds its cached
#: capabilities stale and probes QEMU anew at every start. docs/guests.md tells the user.
_CONFIGURATION_ROOT: Final = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
"""

#: QEMU's messages go to a file, not through a virtlogd daemon.
_CONFIGURATION: Final = """\
stdio_handler = "file"
"""


def uri(root: Path) -> str:
    """Return the connection URI of the driver that is embedded below ``root``."""
    return f"qemu:///embed?root={quote(str(root))}"


def configuration(*, as_root: bool) -> str:
    """Return the text of ``etc/qemu.conf``."""
    return (_CONFIGURATION_ROOT if as_root else "") + _CONFIGURATION


def make(root: Path, capabilities: Path) -> None:
    """Make a private root whose capability cache is the folder ``capabilities``, which outlives it.

    Without that each run would ask QEMU for its capabilities anew, which takes seconds.
    """
    for folder in (root / "etc", capabilities):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (root / "etc" / "qemu.conf").write_text(configuration(as_root=os.geteuid() == 0))
    with contextlib.suppress(FileExistsError):
        (root / "cache").symlink_to(capabilities)


def emulator(launch: Path, qemu: Path, cache: Path) -> Path:
    """Return a wrapper in ``cache`` that joins its cgroups and becomes ``qemu``; make it where there is none.

    It is ``launch`` under the name of ``qemu``, with a link ``real`` beside it. Its folder names both programs'
    identities: libvirt caches capabilities by the path of the emulator, so the path must stay while they are the same
    and must change when either does. It is compared with both each time, and made anew where it differs.
    Raises EnvironmentFailure for one that cannot be had.
    """
    folder = cache / _identity(launch, qemu)
    if not _is_wrapper(folder, launch, qemu):
        make_folder(cache, 0o755)
        _publish(launch, qemu, folder)
        if not _is_wrapper(folder, launch, qemu):
            raise EnvironmentFailure(f"{folder} is no emulator wrapper and cannot be made one", hint=f"remove {folder}")
    return folder / qemu.name


def _identity(launch: Path, qemu: Path) -> str:
    status = qemu.stat()
    described = f"{qemu}\0{status.st_size}\0{status.st_mtime_ns}\0".encode()
    return hashlib.sha256(described + launch.read_bytes()).hexdigest()[:16]


def _is_wrapper(folder: Path, launch: Path, qemu: Path) -> bool:
    """Say whether ``folder`` has what ``_publish`` puts there, and nobody else could have written it."""
    wrapper, real = folder / qemu.name, folder / "real"
    if folder.is_symlink() or wrapper.is_symlink() or trust.doubt(wrapper):
        return False
    try:
        same = wrapper.read_bytes() == launch.read_bytes() and real.readlink() == qemu
    except OSError:
        return False
    return same and os.access(wrapper, os.X_OK)


def _publish(launch: Path, qemu: Path, folder: Path) -> None:
    """Make the wrapper in place of whatever is there."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        content = Path(made, "content")
        content.mkdir(0o755)
        shutil.copyfile(launch, content / qemu.name)
        (content / qemu.name).chmod(0o755)
        (content / "real").symlink_to(qemu)
        with contextlib.suppress(OSError):
            folder.rename(Path(made, "before"))
        # Two processes may make it at once: the first one's is used.
        with contextlib.suppress(OSError):
            content.rename(folder)
