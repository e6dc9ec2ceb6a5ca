"""OCI images of others are read as untrusted; of one of ours a layout is derived that others read."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from benchbox.errors import ImageError
from benchbox.images import inventory, oci, tree
from benchbox.images.oci import architecture
from benchbox.images.tree import Entry, file, folder, link
from benchbox.model import Image
from tests.images.tars import layout, member, packed

LAYERS = (
    packed(member("etc/a", content=b"a"), member("etc/b", content=b"b"), by="gzip"),
    packed(member("etc/.wh.a"), member("c", content=b"c"), by="zstd"),
)


def read(source: Path, tmp_path: Path) -> dict[str, Entry]:
    contents = tmp_path / "contents"
    contents.mkdir()
    return {entry.path: entry for entry in oci.entries(source, oci.looked_at(source), contents)}


def archived(source: Path, target: Path, compress: bool = False) -> Path:
    with tarfile.open(target, "w:gz" if compress else "w") as archive:
        archive.add(source, arcname=".")
    return target


@pytest.mark.parametrize("form", ["folder", "archive", "packed archive"])
def test_the_layers_of_a_layout_become_a_tree(form: str, tmp_path: Path) -> None:
    """Of a folder, of an archive, of a packed one; each layer packed in its own way."""
    source = layout(tmp_path / "layout", LAYERS)
    if form != "folder":
        source = archived(source, tmp_path / "image.tar", compress=form.startswith("packed"))
    assert set(read(source, tmp_path)) == {"etc", "etc/b", "c"}


def other_machine() -> str:
    return "arm64" if architecture() == "amd64" else "amd64"


def indexed(source: Path, *platforms: str, **changes: Any) -> Path:
    """Let the index name the image once for each of ``platforms``."""
    (one,) = json.loads((source / "index.json").read_text())["manifests"]
    all_of_them = [one | {"platform": {"os": "linux", "architecture": name}} for name in platforms]
    (source / "index.json").write_text(json.dumps({"manifests": all_of_them, **changes}))
    return source


def test_the_image_for_this_machine_is_taken(tmp_path: Path) -> None:
    """Of several."""
    source = indexed(layout(tmp_path / "layout", LAYERS), other_machine(), architecture(), "unknown")
    assert "c" in read(source, tmp_path)


@pytest.mark.parametrize(
    ("platforms", "said"),
    [
        (("s390x", "mips"), f"no image for linux/{architecture()}; it has linux/mips, linux/s390x"),
        ((architecture(), architecture()), r"2 images \(None, None\); expected one"),
        ((), "it has none"),
    ],
)
def test_which_image_is_meant_must_be_clear(platforms: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """One, for this machine."""
    with pytest.raises(ImageError, match=said):
        read(indexed(layout(tmp_path / "layout", LAYERS), *platforms), tmp_path)


def damaged(source: Path, damage: str) -> None:
    blobs = sorted((source / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "gone":
        blobs[-1].unlink()
    elif damage == "changed":
        blobs[-1].write_bytes(blobs[-1].read_bytes()[:-1] + b"?")
    elif damage == "elsewhere":
        shutil.move(blobs[-1], source / "blob")
        blobs[-1].symlink_to("/etc/passwd")
    elif damage == "no index":
        (source / "index.json").unlink()
    else:
        (source / "index.json").write_text(damage)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("gone", "entry 'sha256:.*': this blob is missing"),
        ("changed", "this blob is not what its digest says"),
        ("elsewhere", "this blob is not what its digest says"),
        ("no index", "no OCI image layout: it has no index.json"),
        ("{", "entry 'index.json': no JSON"),
        ("[" * 100_000, "entry 'index.json': no JSON"),
        ("[]", "it has none"),
        ('{"manifests": 7}', "it has none"),
        ('{"manifests": [7]}', "no sha256 digest"),
        ('{"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]}', "no sha256 digest"),
        (json.dumps({"manifests": [{"digest": f"sha256:{'0' * 64}", "size": 1}]}), "this blob is missing"),
        (" " * (5 << 20), "too large to be a description"),
    ],
)
def test_a_layout_that_is_not_whole_is_refused(damage: str, said: str, tmp_path: Path) -> None:
    """With its path, the blob and the reason."""
    source = layout(tmp_path / "layout", LAYERS)
    damaged(source, damage)
    with pytest.raises(ImageError, match=said) as caught:
        read(source, tmp_path)
    assert caught.value.message.startswith(str(source))


def described_as(where: Path, value: Any, kind: str = "index") -> dict[str, Any]:
    """Write the description ``value`` into the layout ``where`` and return its descriptor."""
    data = json.dumps(value).encode()
    digest = tree.content_sum(data)
    (where / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": f"sha256:{digest}", "size": len(data)}


def nested_index(where: Path, depth: int, width: int) -> Path:
    """Let the index of the layout ``where`` be one of indexes, each naming the next ``width`` times."""
    named = json.loads((where / "index.json").read_text())["manifests"]
    for _ in range(depth):
        named = [described_as(where, {"manifests": named})] * width
    (where / "index.json").write_text(json.dumps({"manifests": named}))
    return where


def sums(monkeypatch: pytest.MonkeyPatch) -> list[tree.Content]:
    """Return what is summed from now on."""
    summed: list[tree.Content] = []
    content_sum = tree.content_sum

    def counted(content: tree.Content) -> str:
        summed.append(content)
        return content_sum(content)

    monkeypatch.setattr(tree, "content_sum", counted)
    return summed


def test_an_index_that_is_named_many_times_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 times in each of three, which is 27,000 times in all."""
    source = nested_index(layout(tmp_path / "layout", LAYERS), 3, 30)
    summed = sums(monkeypatch)
    assert "c" in read(source, tmp_path)
    assert len(summed) == 3 + 1 + 1 + len(LAYERS)


def test_a_layer_that_is_named_many_times_is_summed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies over those below each time."""
    source = layout(tmp_path / "layout", (LAYERS[0],) * 50)
    summed = sums(monkeypatch)
    assert set(read(source, tmp_path)) == {"etc", "etc/a", "etc/b"}
    assert len(summed) == 3


def test_indexes_have_bounds(tmp_path: Path) -> None:
    """How deep they lie in one another, how many images they name."""
    with pytest.raises(ImageError, match="an index that lies in more than 3 others"):
        read(nested_index(layout(tmp_path / "deep", LAYERS), 4, 1), tmp_path)
    wide = layout(tmp_path / "wide", LAYERS)
    indexed(wide, *(str(number) for number in range(1001)))
    (tmp_path / "more").mkdir()
    with pytest.raises(ImageError, match="its indexes name more than 1000 images"):
        read(wide, tmp_path / "more")


def test_all_descriptions_together_have_a_bound(tmp_path: Path) -> None:
    """One by one each would be small enough."""
    source = layout(tmp_path / "layout", LAYERS)
    several = [described_as(source, {"manifests": [], "x": f"{number}" * (1 << 20)}) for number in range(5)]
    (source / "index.json").write_text(json.dumps({"manifests": several}))
    with pytest.raises(ImageError, match=r"entry 'sha256:\w+': too large to be a description \(4 MiB are for all"):
        read(source, tmp_path)


def test_a_description_that_is_too_large_is_not_even_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file costs nothing, its sum takes hours."""
    source = layout(tmp_path / "layout", LAYERS)
    large = source / "blobs/sha256" / ("0" * 64)
    with large.open("wb") as file:
        file.truncate(8 << 30)
    (source / "index.json").write_text(json.dumps({"manifests": [{"digest": f"sha256:{large.name}", "size": 8 << 30}]}))
    monkeypatch.setattr(tree, "content_sum", lambda content: pytest.fail("summed"))
    with pytest.raises(ImageError, match="too large to be a description"):
        read(source, tmp_path)


def test_a_blob_that_is_exchanged_after_its_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a link to what only root may read, say."""
    source = layout(tmp_path / "layout", LAYERS)
    (tmp_path / "secret.tar").write_bytes(packed(member("secret", content=b"s")))
    layers = oci.Layout.layers

    def then_exchanged(self: oci.Layout) -> Any:
        found = layers(self)
        found[-1][1].path.unlink()
        found[-1][1].path.symlink_to(tmp_path / "secret.tar")
        return found

    monkeypatch.setattr(oci.Layout, "layers", then_exchanged)
    with pytest.raises(ImageError, match="changed while it was read"):
        read(source, tmp_path)


def test_what_an_image_says_of_itself_steers_no_terminal(tmp_path: Path) -> None:
    """Nor does it fill one."""
    platforms = ("\x1b[2J" + "x" * 10_000, *(f"machine{number}" for number in range(100)))
    with pytest.raises(ImageError) as caught:
        read(indexed(layout(tmp_path / "layout", LAYERS), *platforms), tmp_path)
    assert caught.value.message.isprintable() and len(caught.value.message) < 1000


def test_what_a_layer_may_not_hold_is_said_with_the_layer(tmp_path: Path) -> None:
    """Its number and the beginning of its digest."""
    source = layout(tmp_path / "layout", (*LAYERS, packed(member("../evil"))))
    with pytest.raises(ImageError, match=r"layout: layer 3 \(sha256:\w+\): entry '../evil': its path leads upwards"):
        read(source, tmp_path)


def test_a_layout_without_layers_is_no_root(tmp_path: Path) -> None:
    """Nor is one with more than anybody makes."""
    for number, layers in enumerate(((), tuple(packed(member(str(n))) for n in range(257)))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ImageError, match="expected 1 to 256 layers"):
            read(layout(tmp_path / f"layout{number}", layers), tmp_path / str(number))


def test_the_key_of_an_image_changes_with_it(tmp_path: Path) -> None:
    """A layout's index says all; an archive is a file."""
    source = layout(tmp_path / "layout", LAYERS)
    key = tree.content_sum(oci.looked_at(source))
    assert tree.content_sum(oci.looked_at(layout(tmp_path / "again", LAYERS))) == key
    assert tree.content_sum(oci.looked_at(layout(tmp_path / "other", LAYERS[:1]))) != key
    assert tree.content_sum(oci.looked_at(archived(source, tmp_path / "image.tar"))) != key
    with pytest.raises(ImageError, match="no OCI image layout"):
        oci.looked_at(tmp_path)


# ---- of ours --------------------------------------------------------------------------------------------------------

TREE = (
    folder("bin"), file("bin/ready", b"ready" * 1000, 0o755), link("bin/sh", "ready"), folder("tmp", 0o1777),
    file("long-" + "x" * 200, b"", 0o600), file("ümlaut", b"u"),
)  # fmt: skip


def image(tmp_path: Path) -> Image:
    tree.write(TREE, tmp_path / "root")
    return Image("some", tree.digest(TREE, tree.file_sums(TREE)), tmp_path / "root")


def test_a_derived_layout_is_read_as_the_same_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reader for those of others."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    ours = image(tmp_path)
    found = list(read(oci.derive_oci(ours), tmp_path).values())
    assert tree.digest(found, tree.file_sums(found)) == ours.digest


def test_the_same_tree_gives_the_same_layout(tmp_path: Path) -> None:
    """Byte by byte, whoever owns the files and whenever they were read."""
    root = image(tmp_path).root
    oci.write_layout(root, tmp_path / "first")
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    oci.write_layout(tmp_path / "copy", tmp_path / "second")
    contents = [
        {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}
        for top in (tmp_path / "first", tmp_path / "second")
    ]
    assert contents[0] == contents[1]
    assert set(contents[0]) >= {"index.json", "oci-layout"} and len(contents[0]) == 5


def test_the_one_layer_is_root_s_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor and the config say what it is before and after packing."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    found = oci.derive_oci(image(tmp_path))
    packed_layer = oci.layer(found)
    unpacked = gzip.decompress(packed_layer.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        members = archive.getmembers()
    assert {(info.uid, info.gid, info.uname, info.mtime) for info in members} == {(0, 0, "", tree.MTIME_S)}
    manifest, config = described(found)
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert config["rootfs"]["diff_ids"] == [f"sha256:{tree.content_sum(unpacked)}"]
    assert (config["os"], config["architecture"]) == ("linux", architecture())


def described(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return manifest and config of a layout."""

    def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
        path = folder / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")
        assert path.stat().st_size == descriptor["size"]
        return dict(json.loads(path.read_text()))

    manifest = blob(json.loads((folder / "index.json").read_text())["manifests"][0])
    return manifest, blob(manifest["config"])


def test_a_layout_is_derived_once_and_goes_with_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of which a blob changed is made again."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    ours = image(tmp_path)
    blob = oci.layer(oci.derive_oci(ours))
    made_ns = blob.stat().st_mtime_ns
    assert oci.layer(oci.derive_oci(ours)).stat().st_mtime_ns == made_ns
    blob.write_bytes(b"other")
    assert oci.layer(oci.derive_oci(ours)).read_bytes() != b"other"
    assert [entry.what for entry in inventory.find(["some"])] == ["OCI layout of image some"]
