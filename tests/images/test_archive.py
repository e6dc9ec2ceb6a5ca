"""Archives of others become a tree inside of a root, or are refused with archive, entry and reason."""

import gzip
import io
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchbox.errors import ImageError
from benchbox.images import tree
from benchbox.images.archive import BOUNDS, Bounds, Unpacking
from benchbox.images.tree import Entry
from tests.images.tars import folder, hard_link, link, member, packed


def unpacked(tmp_path: Path, *archives: bytes, layer: bool = False, bounds: Bounds = BOUNDS) -> dict[str, Entry]:
    """Return the tree of ``archives``, one laid over the other."""
    contents = tmp_path / "contents"
    contents.mkdir()
    unpacking = Unpacking(contents, bounds)
    for number, data in enumerate(archives):
        (tmp_path / f"{number}.tar").write_bytes(data)
        unpacking.add(tmp_path / f"{number}.tar", layer=layer)
    return {entry.path: entry for entry in unpacking.entries()}


def text(entry: Entry) -> str:
    assert isinstance(entry.content, Path)
    return entry.content.read_text()


@pytest.mark.parametrize("by", ["", "gzip", "zstd"])
def test_an_archive_becomes_the_tree_that_is_in_it(tmp_path: Path, by: str) -> None:
    """Packed or not; folders that it leaves out are there, ``./`` is nothing, no more rights than who runs it."""
    found = unpacked(
        tmp_path,
        packed(
            folder("./"), folder("./bin/"), member("./bin/sh", content=b"sh", mode=0o4755), link("bin/ash", "sh"),
            hard_link("bin/dash", "./bin/sh"), link("lib", "/usr/lib"), member("usr/lib/deep/x", content=b"y" * 700),
            folder("tmp", mode=0o1777), member("secret", content=b"", mode=0),
            by=by,
        ),
    )  # fmt: skip
    assert " ".join(sorted(found)) == (
        "bin bin/ash bin/dash bin/sh lib secret tmp usr usr/lib usr/lib/deep usr/lib/deep/x"
    )
    assert (text(found["bin/sh"]), text(found["bin/dash"]), found["bin/ash"].target) == ("sh", "sh", "sh")
    assert (found["lib"].target, text(found["usr/lib/deep/x"])) == ("/usr/lib", "y" * 700)
    modes = {path: oct(stat.S_IMODE(found[path].mode)) for path in ("bin/sh", "tmp", "secret")}
    assert modes == {"bin/sh": "0o755", "tmp": "0o1777", "secret": "0o400"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("/etc/passwd")], "entry '/etc/passwd': an absolute path"),
        ([member("../evil")], "entry '../evil': its path leads upwards"),
        ([member("a/../../evil")], "leads upwards"),
        ([folder("a/..")], "leads upwards"),
        ([member("x\nset_inode_field")], "a control character"),
        ([member("x" * 256)], "name is too long"),
        ([member("a/" * 1500 + "x")], "name is too long"),
        ([link("a", "../etc")], r"entry 'a': a link that leaves the root \(to '../etc'\)"),
        ([link("a/b", "../../etc")], "a link that leaves the root"),
        ([link("a", "/../etc")], "a link that leaves the root"),
        ([link("a", "b/../../c")], "a link that leaves the root"),
        ([link("a", "")], "a link to nothing"),
        ([link("lib", "/"), member("lib/evil")], "entry 'lib/evil': it lies in 'lib', which is no folder"),
        ([link("up", "."), folder("up/x")], "it lies in 'up', which is no folder"),
        ([member("file"), member("file/x")], "it lies in 'file', which is no folder"),
        ([hard_link("a", "/etc/shadow")], "entry '/etc/shadow': an absolute path"),
        ([hard_link("a", "../etc/shadow")], "leads upwards"),
        ([hard_link("a", "etc/shadow")], "a hard link to 'etc/shadow', which is no file of the image"),
        ([link("s", "/etc/shadow"), hard_link("a", "s")], "which is no file of the image"),
        ([folder("d"), hard_link("a", "d")], "which is no file of the image"),
        ([hard_link("a", "a")], "which is no file of the image"),
        ([member("dev/sda", tarfile.BLKTYPE)], "entry 'dev/sda': a device"),
        ([member("null", tarfile.CHRTYPE)], "entry 'null': a device"),
        ([member("pipe", tarfile.FIFOTYPE)], "entry 'pipe': a named pipe"),
        ([member("odd", b"Q")], "of an unknown type"),
    ],
)
def test_what_leaves_the_root_or_is_no_file_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], said: str, tmp_path: Path
) -> None:
    """With the archive's name, the entry and the reason; a layer is held to the same."""
    for number, layer in enumerate((False, True)):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ImageError, match=said) as caught:
            unpacked(tmp_path / str(number), packed(*members), layer=layer)
        assert caught.value.message.startswith(f"{tmp_path / str(number)}/0.tar: ")


def test_a_link_inside_of_the_root_stays(tmp_path: Path) -> None:
    """Also one that goes up and down again, and one that is absolute: it begins at the image's root."""
    targets = {"a/b/c": "../../x", "a/d": "../a/./b", "e": "/etc/../x", "f": "a//b/"}
    found = unpacked(tmp_path, packed(*(link(path, target) for path, target in targets.items())))
    assert {path: found[path].target for path in targets} == targets


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (Bounds(entries=2), "entry 'c': more than 2 entries"),
        (Bounds(content_bytes=10), "entry 'b': more than 10 B"),
        (Bounds(name_bytes=2), "entry 'c': names of more than 2 B"),
    ],
)
def test_an_archive_has_bounds(bounds: Bounds, said: str, tmp_path: Path) -> None:
    """Of entries and of what is unpacked."""
    with pytest.raises(ImageError, match=said):
        unpacked(tmp_path, packed(*(member(name, content=b"x" * 6) for name in "abc")), bounds=bounds)


@pytest.mark.parametrize(
    ("members", "bounds", "said"),
    [
        ([member("a/b/c/d/e")], Bounds(entries=4), "entry 'a/b/c/d': more than 4 entries"),
        ([member(f"{n}/x") for n in range(5)], Bounds(entries=8), "entry '3': more than 8 entries"),
        (
            [member("a", content=b"x" * 10), *(hard_link(str(n), "a") for n in range(5))],
            Bounds(entries=5),
            "entry '4': more than 5 entries",
        ),
        (
            [member("a", content=b"x" * 10), *(hard_link(str(n), "a") for n in range(5))],
            Bounds(content_bytes=35),
            "entry '2': more than 35 B in all",
        ),
        ([link(str(n), "x" * 90) for n in range(5)], Bounds(name_bytes=300), "entry '3': names of more than 300 B"),
        ([member(f"{'d' * 90}/{n}/x") for n in range(5)], Bounds(name_bytes=500), "entry 'd+': names of more"),
    ],
)
def test_what_an_archive_only_implies_counts(
    members: list[tuple[tarfile.TarInfo, bytes]], bounds: Bounds, said: str, tmp_path: Path
) -> None:
    """Folders that it leaves out, files with several names (each becomes one of its own), long names and targets."""
    with pytest.raises(ImageError, match=said):
        unpacked(tmp_path, packed(*members), bounds=bounds)


def test_layers_share_what_an_image_may_be(tmp_path: Path) -> None:
    """Hard links of one to a file of another are files of their own as well."""
    layers = (packed(member("a", content=b"x" * 10)), packed(hard_link("b", "a")), packed(hard_link("c", "a")))
    with pytest.raises(ImageError, match=r"2.tar: entry 'c': more than 25 B"):
        unpacked(tmp_path, *layers, layer=True, bounds=Bounds(content_bytes=25))


def test_folders_in_one_another_have_a_bound(tmp_path: Path) -> None:
    """What is deeper could not be walked through everywhere."""
    assert len(unpacked(tmp_path, packed(member("d/" * 127 + "x")))) == 128
    with pytest.raises(ImageError, match="it lies deeper than 128 folders"):
        unpacked(tmp_path / "contents", packed(member("d/" * 128 + "x")))


def test_attributes_of_the_whole_archive_have_a_bound(tmp_path: Path) -> None:
    """Each of its entries gets them all."""
    output = io.BytesIO()
    attributes = {f"key{number}": "x" for number in range(100)}
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, pax_headers=attributes) as archive:
        archive.addfile(member("a")[0])
    with pytest.raises(ImageError, match="more than 64 attributes of the whole archive"):
        unpacked(tmp_path, output.getvalue())


@pytest.mark.parametrize("by", ["gzip", "zstd"])
def test_a_bomb_is_stopped(by: str, tmp_path: Path) -> None:
    """By what it unpacks to, be that contents, a header, or nothing that a tar has."""
    bounds = Bounds(content_bytes=1 << 20)
    for number, data in enumerate((packed(member("a", content=bytes(8 << 20)), by=by), _padded(by))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ImageError, match="more than"):
            unpacked(tmp_path / str(number), data, bounds=bounds)
        written = sum(path.stat().st_size for path in (tmp_path / str(number) / "contents").iterdir())
        assert written <= 2 << 20


def _padded(by: str) -> bytes:
    """Return an archive whose first entry says that it is longer than all that a disk holds, and is full of zeros."""
    info, _ = member("a", content=b"")
    info.size = 1 << 40
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20)
    return gzip.compress(data) if by == "gzip" else zstandard.compress(data)


def header(**fields: object) -> bytes:
    info = tarfile.TarInfo("x")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no tar archive"),
        (b"hello", "no tar archive"),
        (bytes(range(256)) * 8, "no tar archive"),
        (b"\x1f\x8b\x08 broken", "broken compressed data|no tar archive"),
        (b"\x28\xb5\x2f\xfd broken", "broken compressed data"),
        (b"BZh9", "packed with bzip2"),
        (b"\xfd7zXZ\x00", "packed with xz"),
        (packed(member("a", content=b"x" * 4000), by="gzip")[:-40], "broken compressed data|no tar archive"),
        (packed(member("a", content=b"x" * 4000))[:2000], "no tar archive, or a broken one|the archive ends in it"),
        (header(size=100) + b"x" * 10, "no tar archive, or a broken one|the archive ends in it"),
        (header(type=tarfile.XHDTYPE, size=1 << 33) + bytes(512), "too large"),
        (header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 33) + bytes(512), "too large"),
    ],
)
def test_what_is_no_archive_is_said(data: bytes, said: str, tmp_path: Path) -> None:
    """Never an exception of another kind, never a hang."""
    with pytest.raises(ImageError, match=said):
        unpacked(tmp_path, data)


def test_a_map_without_end_of_a_sparse_file_is_stopped(tmp_path: Path) -> None:
    """It would be kept in memory: of the old GNU format, whose map goes on in the next block, and in the next."""
    info, _ = member("a", b"S")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = bytearray((b"%011o\0" % 1) * 42)
    block += bytes([1]) + bytes(512 - len(block) - 1)
    with pytest.raises(ImageError, match="a header that is too large"):
        unpacked(tmp_path, gzip.compress(bytes(header) + bytes(block) * 20_000))


def test_a_chain_of_headers_is_stopped(tmp_path: Path) -> None:
    """Each of them is small enough, and kept until the entry that they are for."""
    one = packed(member("a", pax_headers={"key": "x" * 900_000}))
    attributes = one[: 512 + -(-len(f"900012 key={'x' * 900_000}") // 512) * 512]
    with pytest.raises(ImageError, match="a header that is too large"):
        unpacked(tmp_path, attributes * 6 + one)


def test_an_entry_of_negative_size_ends_it(tmp_path: Path) -> None:
    """It would be read again and again."""
    data = bytearray(header())
    data[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    with pytest.raises(ImageError, match=r"broken|the archive ends in it"):
        unpacked(tmp_path, bytes(data) + bytes(1024))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the reason of the kernel."""
    with pytest.raises(ImageError, match=r"nowhere\.tar: No such file"):
        Unpacking(tmp_path).add(tmp_path / "nowhere.tar")


# ---- layers ---------------------------------------------------------------------------------------------------------

BASE = packed(
    folder("etc"), member("etc/a", content=b"a"), member("etc/b", content=b"b"), folder("etc/d"),
    member("etc/d/x", content=b"x"), member("bin", content=b"no folder yet"), link("l", "etc"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "there", "gone"),
    [
        ([member("etc/.wh.a")], {"etc/b"}, {"etc/a", "etc/.wh.a"}),
        ([member("etc/.wh.d")], {"etc/a"}, {"etc/d", "etc/d/x"}),
        ([member("etc/.wh.nothing")], {"etc/a"}, set()),
        ([member("nowhere/.wh.x")], {"etc/a"}, {"nowhere"}),
        ([member(".wh.etc")], {"bin"}, {"etc", "etc/a"}),
        ([member("etc/.wh..wh..opq"), member("etc/new")], {"etc", "etc/new"}, {"etc/a", "etc/d/x"}),
        ([member("etc/new"), member("etc/.wh..wh..opq")], {"etc/new"}, {"etc/a"}),
        ([member("etc/a", content=b"again"), member("etc/.wh.a")], {"etc/a"}, set()),
        ([folder("bin"), member("bin/sh")], {"bin/sh"}, set()),
        ([member("etc/d", content=b"a file now")], {"etc/d"}, {"etc/d/x"}),
        ([folder("l"), member("l/x")], {"l/x", "etc/a"}, set()),
        ([hard_link("etc/c", "etc/a")], {"etc/a", "etc/c"}, set()),
    ],
)
def test_a_layer_lies_over_those_below(
    layer: list[tuple[tarfile.TarInfo, bytes]], there: set[str], gone: set[str], tmp_path: Path
) -> None:
    """What it takes away is taken of those below only, in whatever order it says so."""
    found = unpacked(tmp_path, BASE, packed(*layer), layer=True)
    assert there <= set(found)
    assert not gone & set(found)


def test_a_whiteout_takes_nothing_through_a_link_or_above_the_root(tmp_path: Path) -> None:
    """It is a name, and no path that somebody follows."""
    found = unpacked(tmp_path, BASE, packed(member("l/.wh.a")), layer=True)
    assert "etc/a" in found
    for number, name in enumerate((".wh..", ".wh...", "etc/.wh.")):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ImageError, match="takes away nothing"):
            unpacked(tmp_path / str(number), BASE, packed(member(name)), layer=True)


def test_a_plain_archive_has_no_whiteouts(tmp_path: Path) -> None:
    """A file may be called so."""
    assert ".wh.a" in unpacked(tmp_path, packed(member("a"), member(".wh.a")))


_PARTS = st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "c"])
_PATHS = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)
_MEMBERS = st.lists(
    st.builds(
        lambda name, kind, target: member(name, kind, b"x" if kind == tarfile.REGTYPE else b"", linkname=target),
        _PATHS,
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
        _PATHS,
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=st.lists(_MEMBERS, min_size=1, max_size=3))
def test_whatever_is_unpacked_lies_in_its_root(
    layers: list[list[tuple[tarfile.TarInfo, bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Or is refused: written to disk, no path and no link of it leads out, and it is read back as it was meant."""
    where = tmp_path_factory.mktemp("any")
    try:
        found = list(unpacked(where, *(packed(*each) for each in layers), layer=True).values())
    except ImageError:
        return
    tree.write(found, where / "root")
    again = tree.scan(where / "root")
    assert tree.digest(again, tree.file_sums(again)) == tree.digest(found, tree.file_sums(found))
    for path in (where / "root").rglob("*"):
        assert path.parent.resolve().is_relative_to(where / "root") or path.parent.is_symlink()
    assert {path.name for path in where.iterdir()} == {"contents", "root", *(f"{n}.tar" for n in range(len(layers)))}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_a_tree_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whichever byte of it was changed."""
    whole = bytearray(packed(folder("d"), member("d/a", content=b"x" * 600), link("l", "d"), hard_link("h", "d/a")))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpacked(tmp_path_factory.mktemp("any"), bytes(whole))
    except ImageError as error:
        assert "0.tar: " in error.message


def test_contents_are_never_read_from_anywhere_else(tmp_path: Path) -> None:
    """A sparse file is as long as it says and zero where it says nothing."""
    info = tarfile.TarInfo("sparse")
    info.size = 4
    info.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "4096", "GNU.sparse.name": "real"}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"abcd"))
    found = unpacked(tmp_path, output.getvalue())
    assert {path: len(text(entry)) for path, entry in found.items()} in ({"real": 4096}, {"sparse": 4096})
