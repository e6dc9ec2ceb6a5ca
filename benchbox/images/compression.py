"""Unpack what kernels and their modules are packed with; the format is known by its first bytes.

Every reader takes a bounded amount of its input and gives a bounded amount of output, whatever the input claims.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from benchbox.errors import ImageError

_CHUNK_BYTES: Final = 1 << 20
#: One block of lz4's legacy frame (``lz4 -l``) holds at most 8 MiB, says its format description.
_LZ4_LEGACY: Final = b"\x02\x21\x4c\x18"
_LZ4_BLOCK_BYTES: Final = 8 << 20
_LZMA_MEMORY_BYTES: Final = 256 << 20


class Reader(Protocol):
    def read(self, size_bytes: int, /) -> bytes: ...


def unpacked(data: bytes, *, limit_bytes: int) -> Iterator[bytes]:
    """Yield the contents of ``data`` in pieces, ``data`` itself if it is in no known format; stop at the limit.

    Data behind the end of the compressed stream is not looked at. Raises ImageError when the stream is broken.
    """
    opener = _opener(data)
    left = limit_bytes
    try:
        reader = opener(data)
        while left and (chunk := reader.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    except (OSError, EOFError, ValueError, RuntimeError, lzma.LZMAError, zlib.error) as error:
        raise ImageError(f"broken compressed data: {error}") from error


def _opener(data: bytes) -> Callable[[bytes], Reader]:
    return next((opener for magic, opener in _FORMATS.items() if data.startswith(magic)), io.BytesIO)


def is_packed(data: bytes) -> bool:
    """Say whether ``data`` begins like one of the known formats."""
    return _opener(data) is not io.BytesIO


class _StandardReader:
    """Read from one of the standard library's decompressors, which keep back what exceeds the size asked for."""

    def __init__(self, decompressor: "lzma.LZMADecompressor | bz2.BZ2Decompressor", data: bytes) -> None:
        self._decompressor = decompressor
        self._input = io.BytesIO(data)

    def read(self, size_bytes: int, /) -> bytes:
        while not self._decompressor.eof:
            chunk = self._input.read(1 << 16) if self._decompressor.needs_input else b""
            output = self._decompressor.decompress(chunk, size_bytes)
            if output:
                return output
            if self._decompressor.needs_input and not chunk:
                raise EOFError("it ends too early")
        return b""


class _Lz4Reader:
    """Read lz4's legacy frame, which the kernel uses: magic, then blocks, each after its 32-bit length."""

    def __init__(self, data: bytes) -> None:
        self._input = io.BytesIO(data)
        self._input.seek(len(_LZ4_LEGACY))
        self._output = io.BytesIO()

    def read(self, size_bytes: int, /) -> bytes:
        output = self._output.read(size_bytes)
        if not output:
            self._output = io.BytesIO(self._block())
            output = self._output.read(size_bytes)
        return output

    def _block(self) -> bytes:
        from lz4 import block

        length_bytes = int.from_bytes(self._input.read(4), "little")
        packed = self._input.read(min(length_bytes, 2 * _LZ4_BLOCK_BYTES))
        if len(packed) < length_bytes:
            raise EOFError("it ends too early")
        try:
            return bytes(block.decompress(packed, uncompressed_size=_LZ4_BLOCK_BYTES)) if packed else b""
        except block.LZ4BlockError as error:
            raise ValueError(str(error)) from error


class _ZstdReader:
    """Read one zstd frame; one that is cut short is noticed by the size that it states."""

    def __init__(self, data: bytes) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor().stream_reader(data)
        self._left_bytes = zstandard.frame_content_size(data)  # below 0: not stated

    def read(self, size_bytes: int, /) -> bytes:
        try:
            output = bytes(self._stream.read(size_bytes))
        except self._error as error:
            raise ValueError(str(error)) from error
        self._left_bytes -= len(output)
        if not output and self._left_bytes > 0:
            raise EOFError("it ends too early")
        return output


_FORMATS: Final[dict[bytes, Callable[[bytes], Reader]]] = {
    b"\x1f\x8b\x08": lambda data: gzip.GzipFile(fileobj=io.BytesIO(data)),
    b"\xfd7zXZ\x00": lambda data: _StandardReader(lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY_BYTES), data),
    b"\x5d\x00\x00": lambda data: _StandardReader(lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY_BYTES), data),
    b"BZh": lambda data: _StandardReader(bz2.BZ2Decompressor(), data),
    b"\x28\xb5\x2f\xfd": _ZstdReader,
    _LZ4_LEGACY: _Lz4Reader,
}
