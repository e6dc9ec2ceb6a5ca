"""What an image weighs: arithmetic, archives and package relations, without any program."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from benchbox import remedies
from benchbox.images import formats, tree
from benchbox.images.formats import Package
from benchbox.images.tree import Entry, file, folder, link

ENTRIES = [folder("bin"), file("bin/tool", b"x" * 5000, 0o755), link("bin/sh", "tool"), folder("tmp", 0o1777)]


def packed(entries: list[Entry]) -> bytes:
    output = io.BytesIO()
    formats.write_tar(entries, output)
    return output.getvalue()


# --- sizes ---


def test_a_file_takes_its_length_and_its_blocks(tmp_path: Path) -> None:
    """A hole has a length and no blocks; 512 bytes each is what stat counts in."""
    path = tmp_path / "holes"
    with path.open("wb") as output:
        output.truncate(8 << 20)
    found = formats.measure(path)
    assert (found.apparent_bytes, found.allocated_bytes) == (8 << 20, path.stat().st_blocks * 512)
    assert found.allocated_bytes < 8 << 20


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    """Folders and links count, too; nothing behind a link does."""
    place = tmp_path / "tree"
    place.mkdir()
    (place / "one").write_bytes(b"x" * 5000)
    alone = formats.measure(place)
    os.link(place / "one", place / "other")
    assert formats.measure(place) == alone
    (place / "away").symlink_to("/usr")
    assert formats.measure(place).apparent_bytes == alone.apparent_bytes + len("/usr")


def test_the_skeleton_has_every_name_and_no_byte() -> None:
    """What is left of a tree without its content; links keep where they lead."""
    bare = formats.skeleton(ENTRIES)
    assert [(e.path, e.mode, e.target) for e in bare] == [(e.path, e.mode, e.target) for e in ENTRIES]
    assert (formats.content_bytes(ENTRIES), formats.content_bytes(bare)) == (5000, 0)


def test_the_change_is_one_file_that_does_not_compress() -> None:
    """The same bytes each time, or numbers could not be compared."""
    after = formats.changed(ENTRIES, 10_000)
    assert (after[:-1], after[-1].path, tree.size_bytes(after[-1].content)) == (ENTRIES, formats.CHANGE, 10_000)
    assert formats.noise(10_000) == formats.noise(10_000)
    assert len(gzip.compress(formats.noise(10_000))) > 10_000


def test_a_file_system_has_room_for_what_it_is_to_hold() -> None:
    """In whole MiB, more for more files, for longer ones, and for room that is asked for."""
    small = formats.file_system_bytes([5000], 4, 0)
    assert small % (1 << 20) == 0 and small >= 16 << 20
    assert formats.file_system_bytes([1] * 10_000, 10_000, 0) > 10_000 * 4096
    assert formats.file_system_bytes([50 << 20], 4, 0) > 55 << 20
    assert formats.file_system_bytes([5000], 4, 32 << 20) == small + (32 << 20)


# --- archives ---


def test_the_same_tree_gives_the_same_archive() -> None:
    """In any order, with neither owners nor times of this host."""
    assert packed(ENTRIES) == packed(ENTRIES[::-1])
    with tarfile.open(fileobj=io.BytesIO(packed(ENTRIES))) as archive:
        members = archive.getmembers()
        tool = archive.extractfile("bin/tool")
        assert tool is not None and tool.read() == b"x" * 5000
    assert [member.name for member in members] == ["bin", "bin/sh", "bin/tool", "tmp"]
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, tree.MTIME_S)}
    assert [member.mode for member in members if member.name == "tmp"] == [0o1777]


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    data = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert descriptor["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert descriptor["size"] == len(data)
    return bytes(data)


def test_an_oci_layout_holds_what_its_descriptors_say(tmp_path: Path) -> None:
    """Each blob by its digest, each layer's archive by its own; sizes of layers are those of the blobs."""
    layers = [ENTRIES, [file("more", b"more")]]
    found = formats.write_layout(tmp_path / "oci", layers)
    index = json.loads((tmp_path / "oci" / "index.json").read_text())
    manifest = json.loads(blob(tmp_path / "oci", index["manifests"][0]))
    config = json.loads(blob(tmp_path / "oci", manifest["config"]))
    packs = [blob(tmp_path / "oci", layer) for layer in manifest["layers"]]
    assert [len(pack) for pack in packs] == found
    assert [gzip.decompress(pack) for pack in packs] == [packed(layer) for layer in layers]
    sums = [f"sha256:{hashlib.sha256(packed(layer)).hexdigest()}" for layer in layers]
    assert config["rootfs"]["diff_ids"] == sums


def test_two_images_share_the_blob_of_their_base(tmp_path: Path) -> None:
    """What is new in the second is its own layer, manifest and configuration."""
    formats.write_layout(tmp_path / "one", [ENTRIES])
    formats.write_layout(tmp_path / "two", [ENTRIES, [file("more", b"more")]])
    one, two = ({path.name for path in (tmp_path / name / "blobs/sha256").iterdir()} for name in ("one", "two"))
    assert (len(one & two), len(one), len(two)) == (1, 3, 4)


def test_clusters_that_differ_are_found(tmp_path: Path) -> None:
    """By where they begin, the last one though it is short."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_bytes(bytes(10))
    after.write_bytes(b"\0\0\0\0\1\0\0\0\0\1")
    assert list(formats.differing(before, after, 4)) == [4, 8]
    assert list(formats.differing(before, before, 4)) == []


# --- packages ---

DPKG = (
    "runc\tii \t8633\t\tlibc6 (>= 2.34), libseccomp2 (>= 2.5.0)\t\n"
    "gone\trc \t500\t\t\t\n"
    "tool\tii \t100\tdpkg (>= 1)\tmail-agent | postfix, libc6:any\tcron-daemon (= 3), thing\n"
    "torn line\n"
)


def test_packages_are_read_as_dpkg_prints_them() -> None:
    """Installed ones only; sizes in bytes; versions and architectures are no part of a name."""
    found = formats.parse_packages(DPKG)
    assert found["runc"] == Package("runc", 8633 << 10, (("libc6",), ("libseccomp2",)))
    assert found["tool"].depends == (("dpkg",), ("mail-agent", "postfix"), ("libc6",))
    assert found["tool"].provides == ("cron-daemon", "thing")
    assert set(found) == {"runc", "tool"}


def known(**depends: str) -> dict[str, Package]:
    return {name: Package(name, 1, tuple((word,) for word in words.split())) for name, words in depends.items()}


def test_what_is_needed_is_needed_all_the_way_down() -> None:
    """Round in circles, by what another package provides, and no further than what is installed."""
    packages = known(vm="a b", a="c missing", b="", c="a", other="c")
    assert formats.needed(packages, ["vm"]) == {"vm", "a", "b", "c"}
    assert formats.needed(packages, ["absent"]) == set()
    packages["smtp"] = Package("smtp", 1, (), ("mail-agent",))
    packages["mailer"] = Package("mailer", 1, (("mail-agent", "never"),))
    assert formats.needed(packages, ["mailer"]) == {"mailer", "smtp"}


def test_what_others_need_too_is_not_there_for_its_sake() -> None:
    """Nor what that depends on; the packages themselves always are."""
    packages = known(vm="own shared", own="deep", deep="", shared="below", below="", other="shared")
    assert formats.only_needed(packages, ["vm"]) == {"vm", "own", "deep"}
    packages["user"] = Package("user", 1, (("vm",),))
    assert formats.only_needed(packages, ["vm"]) == {"vm"}


@pytest.mark.parametrize("name", sorted(formats.NEEDS))
def test_every_format_says_what_it_is_made_with(name: str) -> None:
    """Each program with the package that has it; transfer sizes need two of them everywhere."""
    programs = formats.NEEDS[name]
    assert {"gzip", "zstd"} <= set(programs)
    assert set(programs) <= set(remedies.PACKAGES)
