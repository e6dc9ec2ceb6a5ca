"""What the cache holds can be listed, found by a short name, and freed."""

from pathlib import Path

import pytest

from benchbox import images
from benchbox.errors import ImageError
from benchbox.images import inventory, store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two kernels, a proof, something unfinished, and the scratch folder of a run."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BENCHBOX_CACHE", str(folder))
    for name in ("vmlinux/aa11/vmlinux", "vmlinux/ab22/vmlinux", "scratch/run/file", "store/.making-x/file"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"x" * 10_000)
    (folder / "accelerator").mkdir()
    (folder / "accelerator" / "cc.json").write_text('{"accelerator": "tcg"}')
    return folder


def test_whole_entries_are_listed_with_their_size(cache: Path) -> None:
    """Neither what is being made nor what belongs to a run is one."""
    found = inventory.entries()
    assert [entry.name for entry in found] == ["accelerator/cc.json", "vmlinux/aa11", "vmlinux/ab22"]
    assert all(entry.size_bytes >= 10_000 for entry in found if entry.kind == "vmlinux")
    assert [entry.size_bytes for entry in inventory.entries(measured=False)] == [0, 0, 0]


def test_an_empty_cache_has_no_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor is it an error."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "none"))
    assert inventory.entries() == []


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("vmlinux", ["aa11", "ab22"]),
        ("vmlinux/ab", ["ab22"]),
        ("aa", ["aa11"]),
        ("aa11", ["aa11"]),
    ],
)
def test_an_entry_is_found_by_kind_and_by_the_beginning_of_its_name(name: str, keys: list[str]) -> None:
    """A kind means all of it."""
    assert [entry.key for entry in inventory.find([name])] == keys


def test_what_is_named_twice_is_one() -> None:
    assert len(inventory.find(["vmlinux", "aa", "aa11"])) == 2


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("a", "means 3 entries"),
        ("", "holds no"),
        ("vmlinx", "holds no"),
        ("../scratch", "holds no"),
        ("run", "holds no"),
    ],
)
def test_a_name_that_means_nothing_or_several_things_is_refused(name: str, complaint: str) -> None:
    """What is not listed cannot be named, whatever its path is."""
    with pytest.raises(ImageError, match=complaint):
        inventory.find([name])


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ImageError) as caught:
        inventory.find(["vmlinx"])
    assert caught.value.hint == "did you mean 'vmlinux'?"


def test_what_is_removed_is_gone_and_nothing_else(cache: Path) -> None:
    """An entry that is a folder and one that is a file; the folder of a kind goes with its last entry."""
    for entry in inventory.find(["aa11", "accelerator"]):
        inventory.remove(entry)
    assert [entry.name for entry in inventory.entries()] == ["vmlinux/ab22"]
    assert not (cache / "accelerator").exists()
    assert (cache / "scratch" / "run" / "file").exists()


def test_an_image_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its digest and its programs are told."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "other"))
    image = images.open_image("minimal")
    (entry,) = inventory.find(["minimal"])
    facts = inventory.details(entry)
    assert (facts["what"], facts["digest"]) == ("image minimal", image.digest)
    assert "bin/ready" in facts["programs"]
    assert images.open_image("minimal").digest == image.digest


def test_the_packages_of_an_image_go_by_its_name_too(cache: Path) -> None:
    """They are listed, told with their versions, and freed with it: the next run fetches them anew."""
    for kind in ("store", "distribution"):
        (cache / kind / "ff00" / "root" / "bin").mkdir(parents=True)
        (cache / kind / "ff00" / inventory.NAME_FILE).write_text("debian-start")
    store.seal(cache / "distribution" / "ff00", inventory.NAME_FILE, {"suite": "bookworm", "libc6": "2.36"})
    packages, image = inventory.find(["debian-start"])
    assert (packages.what, image.what) == ("packages of image debian-start", "image debian-start")
    assert inventory.details(packages)["facts"] == {"suite": "bookworm", "libc6": "2.36"}
    assert inventory.details(image)["digest"] == "ff00"


def test_what_a_seal_says_is_told(cache: Path) -> None:
    """So is a proof, which is a file."""
    entry = cache / "kernels" / "package"
    entry.mkdir(parents=True)
    (entry / "vmlinuz").write_bytes(b"kernel")
    store.seal(entry, "vmlinuz", {"version": "6.1"})
    (found,) = inventory.find(["package"])
    assert inventory.details(found)["facts"] == {"version": "6.1"}
    (proof,) = inventory.find(["accelerator"])
    assert inventory.details(proof)["facts"] == {"accelerator": "tcg"}
