"""The archive is what the kernel expects, to the byte."""

import io
from pathlib import Path

import pytest

from benchbox.errors import ImageError
from benchbox.images import cpio
from benchbox.images.tree import Entry, character_device, file, folder, link


def archive(entries: list[Entry]) -> bytes:
    output = io.BytesIO()
    cpio.write(entries, output)
    return output.getvalue()


def parse(data: bytes) -> dict[str, tuple[list[int], bytes]]:
    """Return the 13 numbers and the contents of each member, in order, as the kernel's init/initramfs.c reads them."""
    members = {}
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + numbers[11] - 1].decode()
        start = (at + 110 + numbers[11] + 3) & ~3
        members[name] = (numbers, data[start : start + numbers[6]])
        at = (start + numbers[6] + 3) & ~3
    return members


def test_one_file_is_these_bytes() -> None:
    """Header, name, contents and trailer of the format's description."""
    assert archive([file("init", b"abc", 0o755)]) == (
        b"070701" b"00000001" b"000081ED" b"00000000" b"00000000" b"00000001" b"5E0BE100" b"00000003"
        b"00000000" b"00000000" b"00000000" b"00000000" b"00000005" b"00000000" b"init\0\0" b"abc\0"
        b"070701" b"00000000" b"00000000" b"00000000" b"00000000" b"00000001" b"5E0BE100" b"00000000"
        b"00000000" b"00000000" b"00000000" b"00000000" b"0000000B" b"00000000" b"TRAILER!!!\0\0\0\0"
    )  # fmt: skip


def test_every_type_is_read_back(tmp_path: Path) -> None:
    """Folder, device, file from disk and link keep mode, numbers and contents; all belong to root."""
    (tmp_path / "source").write_bytes(b"x" * 5)
    entries = [
        folder("dev"), character_device("dev/console", 5, 1), file("f", tmp_path / "source"), link("l", "to/there"),
    ]  # fmt: skip
    members = parse(archive(entries))
    assert list(members) == ["dev", "dev/console", "f", "l", "TRAILER!!!"]
    assert [numbers[1] for numbers, _ in members.values()] == [0o040755, 0o020600, 0o100644, 0o120777, 0]
    assert members["dev/console"][0][9:11] == [5, 1]
    assert (members["f"][1], members["l"][1]) == (b"xxxxx", b"to/there")
    assert all(numbers[2:4] == [0, 0] for numbers, _ in members.values())
    assert len({numbers[0] for numbers, _ in members.values()}) == len(members)


def test_the_order_of_entries_plays_no_part() -> None:
    """The same entries are the same bytes, folders first."""
    entries = [file("a/b", b"1"), folder("a"), file("c", b"2")]
    assert archive(entries) == archive(entries[::-1])


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is already in the header: the archive would be torn."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    monkeypatch.setattr(cpio, "copy_content", lambda content, output: output.write(b"xx"))
    with pytest.raises(ImageError, match="changed while it was read"):
        archive([file("f", source)])
