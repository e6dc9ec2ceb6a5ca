"""A tree is what its entries say: same entries, same bytes, same digest."""

import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from benchbox.errors import ImageError
from benchbox.images import tree
from benchbox.images.tree import Entry, character_device, file, folder, link

ENTRIES = [
    file("bin/tool", b"#!/bin/sh\n", 0o755),
    folder("bin"),
    link("bin/other", "tool"),
    folder("tmp", 0o1777),
    file("bin-file", b""),
    file("secret", b"words", 0o600),
]


def digest_of(entries: list[Entry]) -> str:
    return tree.digest(entries, tree.file_sums(entries))


def test_what_is_written_is_what_is_read_back(tmp_path: Path) -> None:
    """The digest of the tree on disk is that of its entries."""
    tree.write(ENTRIES, tmp_path / "root")
    assert digest_of(tree.scan(tmp_path / "root")) == digest_of(ENTRIES)


def test_a_file_that_grows_while_it_is_read_has_an_end(tmp_path: Path) -> None:
    """It is as long as it was when it was looked at."""
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    content = tree.Source(tmp_path / "file", (tmp_path / "file").stat())

    class Growing(io.BytesIO):
        def write(self, data: Any, /) -> int:
            with (tmp_path / "file").open("ab") as file:
                file.write(b"y" * 3_000_000)
            return super().write(data)

    output = Growing()
    assert tree.copy_content(content, output) == 3_000_000
    assert output.getvalue() == b"x" * 3_000_000


def test_a_tree_is_closed_to_others_until_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of it may be for its owner alone, and some may be written to by everybody."""
    modes = []

    def looking(content: tree.Content, output: BinaryIO) -> int:
        modes.append(stat.S_IMODE((tmp_path / "root").stat().st_mode))
        return 0

    monkeypatch.setattr(tree, "copy_content", looking)
    tree.write((folder("open", 0o777), file("open/a", b"", 0o600)), tmp_path / "root")
    assert (modes, stat.S_IMODE((tmp_path / "root").stat().st_mode)) == ([0o700], 0o755)


def test_umask_and_time_play_no_part(tmp_path: Path) -> None:
    """Two hosts with other habits make the same tree, with the same times."""
    tree.write(ENTRIES, tmp_path / "first")
    old_mask = os.umask(0o077)
    try:
        tree.write(list(reversed(ENTRIES)), tmp_path / "second")
    finally:
        os.umask(old_mask)
    assert digest_of(tree.scan(tmp_path / "first")) == digest_of(tree.scan(tmp_path / "second"))
    for path in (tmp_path / "second", *(tmp_path / "second").rglob("*")):
        assert path.lstat().st_mtime == tree.MTIME_S
    assert (tmp_path / "second").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "other",
    [
        file("bin/tool", b"#!/bin/sh \n", 0o755),
        file("bin/tool", b"#!/bin/sh\n", 0o775),
        file("bin/tool2", b"#!/bin/sh\n", 0o755),
        link("bin/tool", "other"),
    ],
    ids=["content", "mode", "path", "type"],
)
def test_any_difference_changes_the_digest(other: Entry) -> None:
    """Content, mode, path and type all count."""
    assert digest_of([other, *ENTRIES[1:]]) != digest_of(ENTRIES)


def test_the_digest_is_frozen() -> None:
    """Images of different benchbox versions are compared by it."""
    assert digest_of([folder("a"), file("a/b", b"c"), link("d", "a/b")]) == (
        "4cead2f4ddb2cc82ef63759321309708fb0258854a0929235983b7d5ce130bfb"
    )


@pytest.mark.parametrize("path", ["", ".", "..", "../up", "/etc", "bin/../../up", "bin//tool", "bin/", "./x", "a\0b"])
def test_a_path_that_could_leave_the_root_is_refused(path: str) -> None:
    """No image writes beside its folder."""
    with pytest.raises(ImageError, match="inside a folder"):
        tree.ordered([folder("bin"), file(path, b"")])


def test_a_path_through_a_link_is_refused() -> None:
    """A link to / must not lead what follows out of the root."""
    with pytest.raises(ImageError, match="'out/passwd'"):
        tree.ordered([link("out", "/etc"), file("out/passwd", b"")])


def test_a_path_given_twice_is_refused() -> None:
    """One of the two would be lost."""
    with pytest.raises(ImageError, match="'a'"):
        tree.ordered([file("a", b"1"), file("a", b"2")])


def test_devices_are_never_written_to_disk(tmp_path: Path) -> None:
    """They need privileges, and an environment makes its own."""
    with pytest.raises(ImageError, match="'null'"):
        tree.write([character_device("null", 1, 3)], tmp_path / "root")


def test_executables_are_the_files_that_may_be_executed() -> None:
    """By absolute path, with the sum of their contents."""
    sums = tree.file_sums(ENTRIES)
    assert tree.executables(ENTRIES, sums) == {"/bin/tool": sums["bin/tool"]}


def test_a_source_that_is_missing_is_named(tmp_path: Path) -> None:
    """The user learns which file is gone."""
    with pytest.raises(ImageError, match="gone: No such file"):
        tree.file_sums([file("a", tmp_path / "gone")])
