"""Real formats of a real image, held against what other programs say of them."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from benchbox import images
from benchbox.environments.format import ToolBox
from benchbox.images import formats, tree
from benchbox.images.tree import Entry
from tests.integration import runs

pytestmark = pytest.mark.integration

FORMATS = ("directory", "oci", "squashfs", "erofs", "ext4", "qcow2", "qcow2-compressed", "qcow2-overlay")


@pytest.fixture
def entries() -> list[Entry]:
    return tree.scan(images.open_image("minimal").root)


@pytest.fixture
def tools() -> ToolBox:
    return ToolBox(time.monotonic() + 120, 120)


def needs(*names: str) -> None:
    missing = [program for name in names for program in formats.NEEDS[name] if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(set(missing)))}")


def said(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "qcow2-overlay"])
def test_a_format_weighs_what_du_says(name: str, entries: list[Entry], tools: ToolBox, tmp_path: Path) -> None:
    """Blocks and lengths; the skeleton is no heavier, the same tree weighs the same again."""
    needs(name)
    built = formats.build(name, entries, tmp_path / "one", tools)
    found = formats.measure(built.path)
    assert found.allocated_bytes == int(said("du", "-s", "-B1", built.path).split()[0])
    assert found.apparent_bytes == int(said("du", "-s", "-b", built.path).split()[0])
    empty = formats.build(name, formats.skeleton(entries), tmp_path / "empty", tools)
    assert formats.measure(empty.path).allocated_bytes < found.allocated_bytes
    again = formats.measure(formats.build(name, entries, tmp_path / "two", tools).path)
    assert again.apparent_bytes == found.apparent_bytes


def test_a_disk_is_what_qemu_says(entries: list[Entry], tools: ToolBox, tmp_path: Path) -> None:
    """Same virtual size in raw and qcow2, allocated bytes as measured, contents the same, file system clean."""
    needs("qcow2")
    raw = formats.build("ext4", entries, tmp_path / "raw", tools).path
    assert subprocess.run(["e2fsck", "-fn", raw], capture_output=True).returncode == 0
    for name in ("qcow2", "qcow2-compressed"):
        disk = formats.build(name, entries, tmp_path / name, tools).path
        info = json.loads(said("qemu-img", "info", "--output=json", disk))
        assert (info["format"], info["virtual-size"]) == ("qcow2", raw.stat().st_size)
        assert info["actual-size"] == formats.measure(disk).allocated_bytes
        said("qemu-img", "compare", raw, disk)


def test_an_overlay_shows_what_was_written_and_holds_nothing_else(
    entries: list[Entry], tools: ToolBox, tmp_path: Path
) -> None:
    """Over the untouched base it is the disk after the change; without one of its clusters it is not."""
    needs("qcow2-overlay")
    base = formats.build("ext4", entries, tmp_path / "base", tools, 1 << 20).path
    after, content = tmp_path / "after", tmp_path / "content"
    shutil.copyfile(base, after)
    content.write_bytes(formats.noise(1 << 20))
    formats.write_into_ext4(after, content, tools)
    assert subprocess.run(["e2fsck", "-fn", after], capture_output=True).returncode == 0
    offsets = list(formats.differing(base, after))
    overlay = tmp_path / "overlay"
    formats.make_overlay(base, after, overlay, offsets, tools)
    said("qemu-img", "compare", after, overlay)
    said("qemu-img", "check", overlay)
    assert len(offsets) * formats.CLUSTER_BYTES <= formats.measure(overlay).allocated_bytes < 3 << 20
    formats.make_overlay(base, after, tmp_path / "torn", offsets[1:], tools)
    differ = subprocess.run(["qemu-img", "compare", after, tmp_path / "torn"], capture_output=True)
    assert differ.returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after", "base", "content", "overlay", "torn"]


def test_a_run_weighs_every_format_and_leaves_nothing(tmp_path: Path) -> None:
    """Two rounds find the same sizes; parts add up; a format that is not to be had is skipped with its package."""
    entries = [{"kind": "format", "label": name, "format": name, "instances": 2} for name in FORMATS]
    runs.scenario(tmp_path, entries, workloads=["image-size"], rounds=2, baseline="directory")
    status, out, err = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml")
    assert status == 0, err
    manifest, samples = runs.read(tmp_path)
    for label in (item.label for item in manifest.environments if item.state == "measured"):
        first, second = (s for s in samples if s.round and s.environment == label)
        sizes = [{n: m.value for n, m in s.metrics.items() if m.unit == "B"} for s in (first, second)]
        assert sizes[0] == sizes[1], label
        parts = sizes[0]["size.part.format"] + sizes[0]["size.part.content"]
        assert parts == sizes[0]["size.allocated"], label
        assert sizes[0]["size.zstd"] > 0 and sizes[0]["size.gzip"] > 0
    for item in manifest.environments:
        assert item.state == "measured" or "apt install" in (item.fix or "")
    assert "is not installed" not in out or "skipped" in out
    assert "The image has" in " ".join(out.split())


def test_a_tool_that_fails_is_a_failed_sample_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other formats go on, nothing is left."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "mke2fs").write_text("#!/bin/sh\necho no luck today >&2\nexit 9\n")
    (fake / "mke2fs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{Path('/usr/bin')}:/usr/sbin:/bin:/sbin")
    entries = [{"kind": "format", "label": name, "format": name, "instances": 0} for name in ("directory", "ext4")]
    runs.scenario(tmp_path, entries, workloads=["image-size"], rounds=1)
    status, _, _ = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml")
    assert status == 2
    by_label = {sample.environment: sample for sample in runs.read(tmp_path)[1] if sample.round}
    assert by_label["directory"].status == "ok"
    assert "mke2fs: exit status 9: no luck today" in (by_label["ext4"].reason or "")
