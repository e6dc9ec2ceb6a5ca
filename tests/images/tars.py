"""Archives for tests, written entry by entry, as nobody should write them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

from benchbox.images.oci import architecture


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry; ``fields`` are those of tarfile.TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, **fields)


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, linkname=target)


def packed(*members: tuple[tarfile.TarInfo, bytes], by: str = "") -> bytes:
    """Return the archive of ``members``, packed ``by`` gzip, zstd or not at all."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    data = output.getvalue()
    return {"": lambda: data, "gzip": lambda: gzip.compress(data, mtime=0), "zstd": lambda: zstandard.compress(data)}[
        by
    ]()


def layout(where: Path, layers: Iterable[bytes], **changes: Any) -> Path:
    """Write an OCI layout with one image of ``layers`` at ``where``; ``changes`` are of its index."""
    blobs = where / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": "x", "digest": f"sha256:{digest}", "size": len(data)}

    config = blob(json.dumps({"os": "linux", "architecture": architecture()}).encode())
    manifest = blob(json.dumps({"config": config, "layers": [blob(data) for data in layers]}).encode())
    (where / "index.json").write_text(json.dumps({"manifests": [manifest], **changes}))
    (where / "oci-layout").write_text("{}")
    return where
