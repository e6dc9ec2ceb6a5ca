"""Which kernel modules a guest needs, in the order in which they load.

Dependencies are read from the modules themselves (``depends=`` in ``.modinfo``, written by the kernel's build):
``modules.dep`` is made by depmod when a kernel is installed, a package that is only unpacked has none.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchbox.errors import ImageError
from benchbox.images import compression

#: What a guest needs to reach its virtio-serial ports.
GUEST_MODULES: Final = ("virtio_pci", "virtio_console")
_MODULE_BYTES_MAX: Final = 64 << 20
_FILE: Final = re.compile(r"([A-Za-z0-9_-]+)\.ko(?:\.(?:gz|xz|zst))?")
_DEPENDS: Final = re.compile(rb"\0depends=([A-Za-z0-9_,-]*)\0")


def needed(wanted: Iterable[str], folder: Path) -> list[tuple[str, bytes]]:
    """Return name and uncompressed contents of the modules to load for ``wanted``, each after those it needs.

    ``folder`` is a kernel's ``/lib/modules/RELEASE``. What is built into the kernel needs no module.
    Raises ImageError when a module is missing or broken.
    """
    paths, builtin = _files(folder), _builtin(folder)
    contents: dict[str, bytes] = {}

    def dependencies(name: str) -> tuple[str, ...]:
        if name in builtin:
            return ()
        contents[name], depends = _read(name, paths, folder)
        return depends

    return [(name, contents[name]) for name in load_order(wanted, dependencies) if name in contents]


def load_order(wanted: Iterable[str], dependencies: Callable[[str], Sequence[str]]) -> list[str]:
    """Return ``wanted`` and all that it depends on, each once and after its own dependencies.

    Raises ImageError for modules that depend on each other in a circle.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ImageError(f"kernel modules depend on each other: {' -> '.join((*above, name))}")
        if name not in done:
            for dependency in dependencies(name):
                visit(dependency, (*above, name))
            done.append(name)

    for name in wanted:
        visit(name, ())
    return done


def parse_dependencies(module: bytes) -> tuple[str, ...]:
    """Return the names of the modules that ``module`` (uncompressed) needs. Raises ImageError if it says none."""
    match = _DEPENDS.search(module)
    if match is None:
        raise ImageError("no kernel module: it does not say what it depends on")
    return tuple(map(_canonical, filter(None, match[1].decode().split(","))))


def parse_builtin(text: str) -> frozenset[str]:
    """Return the names in ``modules.builtin``: one path such as ``kernel/drivers/virtio/virtio.ko`` a line."""
    matches = (_FILE.fullmatch(line.rpartition("/")[2]) for line in text.splitlines())
    return frozenset(_canonical(match[1]) for match in matches if match)


def _canonical(name: str) -> str:
    return name.replace("-", "_")


def _builtin(folder: Path) -> frozenset[str]:
    try:
        return parse_builtin((folder / "modules.builtin").read_text(errors="replace"))
    except OSError:
        return frozenset()


def _files(folder: Path) -> dict[str, Path]:
    """Return the path of each module by its name; one in ``updates/`` replaces the kernel's own, as in depmod."""
    walked = [(Path(parent), names) for parent, _, names in os.walk(folder)]
    walked.sort(key=lambda item: item[0].is_relative_to(folder / "updates"))
    matches = ((_FILE.fullmatch(name), parent / name) for parent, names in walked for name in names)
    return {_canonical(match[1]): path for match, path in matches if match}


def _read(name: str, paths: Mapping[str, Path], folder: Path) -> tuple[bytes, tuple[str, ...]]:
    """Return the uncompressed contents of the module ``name`` and what it depends on."""
    if name not in paths:
        hint = "choose another guest kernel, or give the modules folder that belongs to it"
        raise ImageError(f"{folder}: the guest's kernel module {name} is missing", hint=hint)
    try:
        content = b"".join(compression.unpacked(paths[name].read_bytes(), limit_bytes=_MODULE_BYTES_MAX))
        return content, parse_dependencies(content)
    except (OSError, ImageError) as error:
        raise ImageError(f"{paths[name]}: {error}") from error
