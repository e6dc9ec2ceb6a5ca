"""OCI images: those of others are read, as untrusted; of one of ours a layout is derived.

A layout is a folder with ``index.json`` and ``blobs/sha256/``, an archive is a tar of one:
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

import gzip
import hashlib
import json
import platform
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Protocol

from benchbox.errors import ImageError
from benchbox.images import inventory, store, tree
from benchbox.images.archive import BOUNDS, Unpacking, look, refuse
from benchbox.images.tree import MTIME_S, Entry, Source
from benchbox.model import Image

KIND: Final = "oci"
INDEX: Final = "index.json"
GZIP_LEVEL: Final = 6

#: Part of the key in the store: raise it when the same tree would give another layout.
_FORMAT_VERSION: Final = 1
_BLOBS: Final = "blobs/sha256"
#: Of all indexes, the manifest and the configuration together.
_JSON_BYTES_MAX: Final = 4 << 20
_TOO_LARGE: Final = f"too large to be a description ({_JSON_BYTES_MAX >> 20} MiB are for all of them)"
_OFFERS_MAX: Final = 1000
_NAME_ANNOTATION: Final = "org.opencontainers.image.ref.name"
_LAYERS_MAX: Final = 256
_SHOWN_MAX: Final = 8
_SHOWN_CHARACTERS: Final = 64
_DEPTH_MAX: Final = 3
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MEDIA: Final = "application/vnd.oci.image"
_INDEX_TYPES: Final = (f"{_MEDIA}.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_ARCHITECTURES: Final = {
    "x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x",
    "riscv64": "riscv64",
}  # fmt: skip


def architecture(machine: str | None = None) -> str:
    """Return what OCI images call ``machine``, by default this host's."""
    machine = machine or platform.machine()
    return _ARCHITECTURES.get(machine, machine)


# ---- reading --------------------------------------------------------------------------------------------------------


class Files(Protocol):
    """What is in a layout, by the path inside it."""

    def file(self, name: str) -> Source | None: ...


@dataclass(frozen=True)
class FolderFiles:
    """Those of a layout that is a folder."""

    folder: Path
    index: Source

    def file(self, name: str) -> Source | None:
        found = self.folder / name
        return self.index if name == INDEX else look(found, str(self.folder), name) if found.is_file() else None


class ArchiveFiles:
    """Those of a layout that was an archive: contents by their names in it."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._contents = {e.path: e.content for e in entries if stat.S_ISREG(e.mode) and isinstance(e.content, Path)}

    def file(self, name: str) -> Source | None:
        found = self._contents.get(name)
        return None if found is None else Source(found, found.stat())


def looked_at(source: Path) -> Source:
    """Return the file that the image in ``source`` is a function of: the index of a layout, or the archive.

    Raises ImageError for one that cannot be had.
    """
    if source.is_dir() and not (source / INDEX).is_file():
        raise _no_layout(str(source))
    return look(source / INDEX if source.is_dir() else source, str(source))


def entries(source: Path, file: Source, contents: Path) -> list[Entry]:
    """Return the tree of the image in the layout or archive ``source``, whose ``file`` was ``looked_at``.

    ``contents`` is an empty folder for it. Raises ImageError for what is no such image, is made for other machines, is
    broken, or is refused.
    """
    files: Files = FolderFiles(source, file)
    if file.path == source:
        outer = Unpacking(_made(contents / "archive"))
        outer.add(file)
        files = ArchiveFiles(outer.entries())
    layers = Layout(str(source), files).layers()
    unpacking = Unpacking(_made(contents / "layers"))
    for number, (digest, found) in enumerate(layers, start=1):
        unpacking.add(found, name=f"{source}: layer {number} ({digest[:19]})", layer=True)
    return unpacking.entries()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _no_layout(name: str) -> ImageError:
    hint = "make one, for instance with `skopeo copy docker://NAME oci-archive:FILE`"
    return refuse(name, None, f"no OCI image layout: it has no {INDEX}", hint)


class Layout:
    """An image layout whose every blob is held against its digest, once."""

    def __init__(self, name: str, files: Files) -> None:
        self._name, self._files = name, files
        self._blobs: dict[str, Source] = {}
        self._indexes: set[str] = set()
        self._offers_left, self._json_left = _OFFERS_MAX, _JSON_BYTES_MAX

    def layers(self) -> list[tuple[str, Source]]:
        """Return digest and file of each layer, the lowest first."""
        index = self._files.file(INDEX)
        if index is None:
            raise _no_layout(self._name)
        manifest = self._json(self._chosen(_mapping(self._load(INDEX, index))))
        self._check_config(manifest)
        layers = _list(manifest, "layers")
        if not 0 < len(layers) <= _LAYERS_MAX:
            raise refuse(self._name, None, f"expected 1 to {_LAYERS_MAX} layers; it has {len(layers)}")
        return [(str(layer.get("digest")), self._blob(layer)) for layer in layers]

    def _chosen(self, index: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the one manifest for this machine."""
        offered = list(self._manifests(index, 0))
        wanted = f"linux/{architecture()}"
        fitting = [each for each in offered if _platform(each) in (None, wanted)]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            names = _shown({str(_platform(each)) for each in offered})
            raise refuse(self._name, None, f"no image for {wanted}; it has {names or 'none'}")
        names = _shown(str(_mapping(each.get("annotations")).get(_NAME_ANNOTATION)) for each in fitting)
        raise refuse(
            self._name, None, f"{len(fitting)} images ({names}); expected one",
            "copy the one into a layout of its own: `skopeo copy oci:FOLDER:TAG oci-archive:FILE`",
        )  # fmt: skip

    def _manifests(self, index: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
        for each in _list(index, "manifests"):
            self._offers_left -= 1
            if self._offers_left < 0:
                raise refuse(self._name, None, f"its indexes name more than {_OFFERS_MAX} images")
            digest = str(each.get("digest"))
            if each.get("mediaType") not in _INDEX_TYPES:
                yield each
            elif depth == _DEPTH_MAX:
                raise refuse(self._name, digest, f"an index that lies in more than {_DEPTH_MAX} others")
            elif digest not in self._indexes:
                self._indexes.add(digest)
                yield from self._manifests(self._json(each), depth + 1)

    def _check_config(self, manifest: Mapping[str, Any]) -> None:
        config = self._json(_mapping(manifest.get("config")))
        made_for = f"{config.get('os') or 'linux'}/{config.get('architecture') or architecture()}"
        if made_for != f"linux/{architecture()}":
            raise refuse(self._name, None, f"an image for {_shown([made_for])}; this machine is linux/{architecture()}")

    def _json(self, descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
        digest = str(descriptor.get("digest"))
        return _mapping(self._load(digest, self._blob(descriptor, self._json_left)))

    def _load(self, entry: str, file: Source) -> Any:
        self._json_left -= tree.size_bytes(file)
        if self._json_left < 0:
            raise refuse(self._name, entry, _TOO_LARGE)
        try:
            with file.open() as stream:
                return json.loads(stream.read(tree.size_bytes(file)))
        except (ValueError, RecursionError) as error:
            raise refuse(self._name, entry, f"no JSON: {error}") from error

    def _blob(self, descriptor: Mapping[str, Any], limit_bytes: int = BOUNDS.content_bytes) -> Source:
        """Return the file that ``descriptor`` names, after a look at its size and its sum."""
        digest = str(descriptor.get("digest"))
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise refuse(self._name, digest[:100], "no sha256 digest")
        file = self._blobs.get(digest) or self._files.file(f"{_BLOBS}/{match[1]}")
        if file is None:
            raise refuse(self._name, digest, "this blob is missing")
        if tree.size_bytes(file) > limit_bytes:
            raise refuse(self._name, digest, _TOO_LARGE)
        whole = digest in self._blobs or tree.content_sum(file) == match[1]
        if tree.size_bytes(file) != descriptor.get("size") or not whole:
            raise refuse(self._name, digest, "this blob is not what its digest says")
        self._blobs[digest] = file
        return file


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = value.get(name)
    return [_mapping(each) for each in found] if isinstance(found, list) else []


def _shown(names: Iterable[str]) -> str:
    """Return the first of ``names``, which somebody else has given, so that they can be printed."""
    found = sorted(names)
    more = [f"{len(found) - _SHOWN_MAX} more"] if len(found) > _SHOWN_MAX else []
    return ", ".join([*(repr(name[:_SHOWN_CHARACTERS])[1:-1] for name in found[:_SHOWN_MAX]), *more])


def _platform(descriptor: Mapping[str, Any]) -> str | None:
    found = _mapping(descriptor.get("platform"))
    return f"{found.get('os')}/{found.get('architecture')}" if found else None


# ---- writing --------------------------------------------------------------------------------------------------------


def derive_oci(image: Image) -> Path:
    """Return the folder of an OCI image layout of ``image``: one layer, packed by gzip.

    It is a function of the tree (and of the version of zlib). Raises ImageError where it cannot be made.
    """

    def make(entry: Path) -> None:
        write_layout(image.root, entry / "layout")
        (entry / inventory.NAME_FILE).write_text(image.name)
        store.seal(entry, f"layout/{INDEX}")

    found = store.find_or_make(KIND, f"{image.digest}-{_FORMAT_VERSION}", make, valid=_is_whole)
    return found / "layout"


def layer(layout: Path) -> Path:
    """Return the file of the one layer of a layout that ``derive_oci`` made."""
    ((_, file),) = Layout(str(layout), FolderFiles(layout, looked_at(layout))).layers()
    return file.path


def _is_whole(entry: Path) -> bool:
    """Say whether index and blobs are as they were made: all of them are read."""
    try:
        return store.unseal(entry, f"layout/{INDEX}") is not None and layer(entry / "layout").exists()
    except (OSError, ImageError, ValueError):
        return False


def write_layout(root: Path, folder: Path) -> None:
    """Write the tree at ``root`` as the new layout ``folder``."""
    blobs = folder / _BLOBS
    blobs.mkdir(parents=True)
    packed, diff_id = _write_layer(root, blobs)
    made_at = datetime.fromtimestamp(MTIME_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        "created": made_at,
        "architecture": architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": made_at, "created_by": "benchbox"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _write_json(blobs, f"{_MEDIA}.config.v1+json", config),
        "layers": [packed],
    }
    described = _write_json(blobs, f"{_MEDIA}.manifest.v1+json", manifest)
    platform_ = {"platform": {"architecture": architecture(), "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPES[0], "manifests": [described | platform_]}
    (folder / INDEX).write_bytes(_encoded(index))
    (folder / "oci-layout").write_bytes(_encoded({"imageLayoutVersion": "1.0.0"}))


def write_archive(root: Path, target: IO[bytes]) -> None:
    """Write the tree at ``root`` as a tar archive that is a function of it alone; all of it belongs to root."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.iterdir()):
            archive.add(path, arcname=path.name, filter=plain)


class _Summing:
    """Passes on what is written to it, and sums it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target, self._sum, self._at = target, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        self._at += len(data)
        return self._target.write(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._target.flush()

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()


def _write_layer(root: Path, blobs: Path) -> tuple[dict[str, Any], str]:
    """Write the one layer; return its descriptor and the sha256 of what it unpacks to."""
    path = blobs / "layer"
    with path.open("xb") as file:
        outer: Any = _Summing(file)
        with gzip.GzipFile(filename="", fileobj=outer, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed:
            inner: Any = _Summing(packed)  # type: ignore[arg-type]
            write_archive(root, inner)
    path.chmod(0o644)
    path.rename(blobs / outer.digest)
    return _descriptor(f"{_MEDIA}.layer.v1.tar+gzip", outer.digest, outer.tell()), inner.digest


def _write_json(blobs: Path, media_type: str, value: Mapping[str, Any]) -> dict[str, Any]:
    data = _encoded(value)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(media_type, digest, len(data))


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size_bytes}
