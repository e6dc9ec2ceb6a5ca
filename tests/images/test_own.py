"""Images of the user's own: where they come from, what they lack and get, what is refused."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from benchbox import images
from benchbox.errors import ImageError
from benchbox.images import inventory, own, tree
from benchbox.images.archive import Bounds
from benchbox.images.own import OwnImage
from benchbox.images.tree import Entry, character_device, file, folder, link
from benchbox.linux import removal
from benchbox.model import Image
from tests.folders import nested
from tests.images.tars import layout, member, packed


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and stand-ins for benchbox's programs."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in own.PROGRAMS.values():
        (folder / name).write_text(name)
    monkeypatch.setattr(own, "program", lambda name: folder / name)
    monkeypatch.setattr(images, "program", lambda name: folder / name)
    monkeypatch.setattr(own.completed, "__defaults__", (lambda name: folder / name,))
    return folder


def completed(*found: Entry) -> tuple[dict[str, Entry], tuple[str, ...]]:
    entries, added = own.completed("tar /x.tar", found)
    return {entry.path: entry for entry in entries}, added


def test_what_a_root_lacks_is_added_and_told() -> None:
    """The folders that are mounted on, and benchbox's programs."""
    found, added = completed(file("hello", b"", 0o755))
    assert added == (
        "/dev",
        "/proc",
        "/sys",
        "/tmp",
        "/data",
        "/bin",
        "/bin/ready",
        "/usr",
        "/usr/bin",
        "/usr/bin/first_answer",
    )
    assert stat.S_IMODE(found["tmp"].mode) == 0o1777
    assert stat.S_IMODE(found["bin/ready"].mode) == 0o755


def test_what_is_there_stays() -> None:
    """Also the image's own ready program: it may be of another benchbox, and its sum is in the record."""
    given = (
        *map(folder, ("bin", "data", "dev", "proc", "sys", "usr", "usr/bin")), folder("tmp", 0o700),
        file("bin/ready", b"theirs", 0o755), file("usr/bin/first_answer", b"theirs", 0o755),
    )  # fmt: skip
    found, added = completed(*given)
    assert (added, set(found.values())) == ((), set(given))


def test_what_is_mounted_over_is_left_out() -> None:
    """Devices of a root that somebody unpacked by other means, too."""
    found, _ = completed(folder("dev"), character_device("dev/null", 1, 3), folder("tmp"), file("tmp/x", b""))
    assert not {"dev/null", "tmp/x"} & set(found)


@pytest.mark.parametrize(
    ("links", "place"),
    [
        ((link("bin", "usr/bin"),), "usr/bin/ready"),
        ((link("bin", "/usr/bin"),), "usr/bin/ready"),
        ((link("bin", "usr/../usr/./bin/"),), "usr/bin/ready"),
        ((link("bin", "a"), link("a", "b"), link("b", "opt/c")), "opt/c/ready"),
        ((link("bin", "/../../usr/bin"),), "usr/bin/ready"),
    ],
)
def test_a_program_is_put_where_its_path_leads(links: tuple[Entry, ...], place: str) -> None:
    """Inside of the root, as a process in it would go."""
    found, added = completed(*links)
    assert f"/{place}" in added and place in found
    assert own.resolved("bin/ready", found) == place


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (link("proc", "/etc"), "entry 'proc': no folder, where something is to be mounted"),
        (file("dev", b""), "entry 'dev': no folder"),
        (link("tmp", "var"), "entry 'tmp': no folder"),
        (file("bin", b""), "entry 'bin': no folder"),
        (link("bin", "bin"), "entry 'bin': a link in a circle"),
    ],
)
def test_what_is_in_the_way_is_refused(given: Entry, said: str) -> None:
    """A mount on a link would be one on the host's folder of that name."""
    with pytest.raises(ImageError, match=f"tar /x.tar: {said}"):
        completed(given)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """Links letter by letter, rights without set-user-id, nothing of what is mounted over."""
    root = tmp_path / "root"
    for name in ("bin", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin/sh").write_text("sh")
    (root / "bin/sh").chmod(0o4755)
    (root / "bin/x").symlink_to(".//sh")
    (root / "tmp/x").write_text("x")
    os.mkfifo(root / "dev/pipe")
    found, _ = completed(*own.from_folder(root))
    assert {"bin/sh", "bin/x", "dev", "tmp"} <= set(found)
    assert not {"tmp/x", "dev/pipe"} & set(found)
    assert (oct(found["bin/sh"].mode), found["bin/x"].target) == ("0o100755", ".//sh")


def test_a_folder_is_held_to_the_same_as_an_archive(tmp_path: Path) -> None:
    """No pipe, no link that leaves it, no more than an image may be; said with folder, entry and reason."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_text("xx")
    with pytest.raises(ImageError, match="entry 'a': more than 1 B in all"):
        own.from_folder(root, Bounds(content_bytes=1))
    os.mkfifo(root / "pipe")
    with pytest.raises(ImageError, match=f"{root}: entry 'pipe': neither file, folder nor symbolic link"):
        own.from_folder(root)
    (root / "pipe").unlink()
    (root / "out").symlink_to("../../etc")
    with pytest.raises(ImageError, match="entry 'out': a link that leaves the root"):
        own.from_folder(root)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of somebody else's, beside a file that only root may read."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    (tmp_path / "theirs" / "etc").mkdir(parents=True)
    (tmp_path / "theirs" / "etc" / "key").write_text("public")
    return tmp_path / "theirs"


def exchange(theirs: Path, what: str) -> None:
    """Let a file, or the folder that it lies in, become a link to the secret one, or the file a pipe."""
    if what == "folder":
        (theirs / "etc").rename(theirs / "was")
        return (theirs / "etc").symlink_to(theirs.parent / "private")
    (theirs / "etc" / "key").unlink()
    if what == "pipe":
        return os.mkfifo(theirs / "etc" / "key")
    return (theirs / "etc" / "key").symlink_to(theirs.parent / "private" / "key")


@pytest.mark.parametrize("what", ["file", "folder", "pipe"])
def test_what_is_read_of_a_folder_is_what_was_looked_at(what: str, theirs: Path, tmp_path: Path) -> None:
    """Whatever its owner puts in the place meanwhile: before it is summed, and before it is copied."""
    found = own.from_folder(theirs)
    assert tree.file_sums(found) == {"etc/key": tree.content_sum(b"public")}
    exchange(theirs, what)
    for read in (tree.file_sums, lambda entries: tree.write(entries, tmp_path / "copy")):
        with pytest.raises(ImageError, match="theirs/etc/key: changed while it was read") as caught:
            read(found)
        assert caught.value.hint
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "copy").rglob("*") if path.is_file())


def test_a_file_that_is_written_to_meanwhile_is_refused(theirs: Path) -> None:
    """The same file, with other contents."""
    found = own.from_folder(theirs)
    (theirs / "etc" / "key").write_text("larger than it was")
    with pytest.raises(ImageError, match="changed while it was read"):
        tree.file_sums(found)


def test_a_folder_that_becomes_a_link_is_not_entered(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its turn."""
    from_file = own._from_file

    def then_exchanged(root: Path, opened: int, name: str, above: str) -> Entry:
        entry = from_file(root, opened, name, above)
        if name == "etc":
            exchange(theirs, "folder")
        return entry

    monkeypatch.setattr(own, "_from_file", then_exchanged)
    with pytest.raises(ImageError, match=f"{theirs}: entry 'etc': "):
        own.from_folder(theirs)


def test_folders_in_one_another_have_a_bound(tmp_path: Path) -> None:
    """As in archives; no path or recursion ever gets as deep as the owner can nest them."""
    root = nested(tmp_path / "root", 3000)
    try:
        with pytest.raises(ImageError, match="it lies deeper than 128 folders"):
            own.from_folder(root)
    finally:
        removal.remove(root)


def test_an_archive_that_is_exchanged_is_not_taken_for_the_one_that_was_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sum is what the store knows the tree by."""
    source = sources(tmp_path)["tar-my-root"]
    unpacked = own.unpacked

    def exchanged(*words: Any) -> list[Entry]:
        source.path.unlink()
        source.path.write_bytes(packed(member("other")))
        return unpacked(*words)

    monkeypatch.setattr(own, "unpacked", exchanged)
    with pytest.raises(ImageError, match="changed while it was read"):
        images.open_image(source)
    assert inventory.entries() == []


# ---- opened ---------------------------------------------------------------------------------------------------------


def sources(tmp_path: Path) -> dict[str, OwnImage]:
    """Return the same root file system as a folder, an archive and an OCI layout."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/x").write_text("x")
    data = packed(member("etc/x", content=b"x"), by="gzip")
    (tmp_path / "My Root.tar.gz").write_bytes(data)
    return {
        "directory-root": OwnImage("directory", tmp_path / "root"),
        "tar-my-root": OwnImage("tar", tmp_path / "My Root.tar.gz"),
        "oci-layout": OwnImage("oci", layout(tmp_path / "layout", [data])),
    }


def test_the_same_tree_is_the_same_image_wherever_it_comes_from(tmp_path: Path) -> None:
    """By its digest; what was added is told, and the store holds it once."""
    said: list[str] = []
    opened = {name: images.open_image(source, said.append) for name, source in sources(tmp_path).items()}
    assert {name: image.name for name, image in opened.items()} == {name: name for name in opened}
    assert len({image.digest for image in opened.values()}) == 1
    assert (opened["tar-my-root"].root / "bin/ready").read_text() == "ready"
    assert "/bin/ready" in opened["oci-layout"].executables
    assert [line for line in said if "added" in line] == [
        f"image {name}: added /dev, /proc, /sys, /tmp, /data, /bin, /bin/ready, /usr, /usr/bin, /usr/bin/first_answer"
        for name in opened
    ]
    assert len([entry for entry in inventory.entries() if entry.kind == "store"]) == 1


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    """And again when the file is another, the store is not as it was, or benchbox's programs are newer."""
    source = sources(tmp_path)["tar-my-root"]
    said: list[str] = []

    def opened() -> Image:
        said.clear()
        return images.open_image(source, said.append)

    image = opened()
    assert said[0] == f"image tar-my-root: unpacking {source.path}"
    assert opened() == image and said == []
    (image.root / "etc/x").write_text("changed")
    assert opened() == image and said
    (tmp_path / "programs/ready").write_text("newer")
    assert opened().digest != image.digest
    source.path.write_bytes(packed(member("other")))
    assert (opened().root / "other").exists()


def test_an_image_of_one_s_own_is_listed_inspected_and_removed_by_its_name(tmp_path: Path) -> None:
    """With where it came from and what was added."""
    images.open_image(sources(tmp_path)["tar-my-root"])
    found = inventory.find(["tar-my-root"])
    assert [entry.what for entry in found] == ["what an archive unpacked to: image tar-my-root", "image tar-my-root"]
    facts = inventory.details(found[1])["facts"]
    assert facts["source"] == f"tar {tmp_path / 'My Root.tar.gz'}"
    assert "/bin/ready" in facts["added"] and len(facts["digest"]) == 64
    for entry in found:
        inventory.remove(entry)
    assert inventory.entries() == []


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """Neither an entry nor what was unpacked until then."""
    (tmp_path / "evil.tar").write_bytes(packed(member("good", content=b"x"), member("../evil")))
    with pytest.raises(ImageError, match="leads upwards"):
        images.open_image(OwnImage("tar", tmp_path / "evil.tar"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["directory", "tar", "oci"])
def test_what_is_not_there_is_said(kind: own.Kind, tmp_path: Path) -> None:
    """Also what is something else."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe"):
        source = OwnImage(kind, tmp_path / name)
        assert source.problem() is not None
        with pytest.raises(ImageError, match=f"{name}: expected"):
            images.open_image(source)


def test_a_path_that_is_a_link_to_itself_is_said(tmp_path: Path) -> None:
    """As what is not there."""
    (tmp_path / "loop").symlink_to("loop")
    assert OwnImage("directory", tmp_path / "loop").problem() == "expected a folder that is there"


def test_the_host_s_own_root_is_no_image() -> None:
    """It would be copied whole."""
    assert "the root of this host" in str(OwnImage("directory", Path("/")).problem())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (OwnImage("tar", Path("/a/Alpine_3.20.tar.zst")), "tar-alpine-3-20"),
        (OwnImage("oci", Path("/x.oci.tar")), "oci-x"),
        (OwnImage("directory", Path("/../..")), "directory-image"),
        (OwnImage("directory", Path("/" + "long" * 40)), "directory-" + "long" * 10),
        (OwnImage("tar", Path("/\x1b[31m.tar")), "tar-31m"),
    ],
)
def test_a_name_is_made_of_letters_digits_and_dashes(source: OwnImage, name: str) -> None:
    """As the names of Docker's repositories are."""
    assert source.name == name


def test_packages_are_named_and_nothing_else() -> None:
    """No word of a list may be an option of apt or mmdebstrap, nor several of them."""
    assert OwnImage("packages", packages=("fio", "libc++1", "g++-12")).problem() is None
    for wrong in ("--include=x", "a,b", "?essential", "a b", "", "A", "fio/sid"):
        assert OwnImage("packages", packages=("fio", wrong)).problem() is not None, wrong
    assert OwnImage("packages", packages=("a", "b")).name == OwnImage("packages", packages=("b", "a")).name


def test_a_list_of_packages_is_made_by_the_builder_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what every system has, and benchbox's programs."""
    asked: list[tuple[str, tuple[str, ...]]] = []

    def entries(name: str, packages: tuple[str, ...], progress: object) -> list[Entry]:
        asked.append((name, packages))
        return [folder("usr"), folder("usr/bin"), link("bin", "usr/bin")]

    monkeypatch.setattr("benchbox.images.distribution.entries", entries)
    image = images.open_image(OwnImage("packages", packages=("zstd", "fio")))
    assert asked == [(image.name, ("base-files", "fio", "libc-bin", "zstd"))]
    assert (image.root / "usr/bin/ready").exists()
    assert tree.scan(image.root)
