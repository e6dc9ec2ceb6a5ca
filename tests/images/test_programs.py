"""What was executed is told by its place in the image and its sum; another one is not the image's."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchbox.images.programs import Programs, objection, resolved
from benchbox.images.tree import content_sum
from benchbox.model import Command, Image

OWN = {"/bin/tool": "a" * 64, "/bin/other": "b" * 64}


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image whose /usr/bin/alias leads to /bin/tool by an absolute and a relative link."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "usr").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"tool")
    (tmp_path / "bin/alias").symlink_to("../bin/./tool")
    (tmp_path / "usr/bin").symlink_to("/bin")
    (tmp_path / "bin/out").symlink_to("../../../../../../etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    sums = {"/bin/tool": content_sum(tmp_path / "bin/tool")}
    # The kernel's own clock for such times may be some ms behind.
    time.sleep(0.02)
    return Image("x", "d", tmp_path, sums)


def test_links_are_followed_inside_the_root_only(image: Image) -> None:
    """As a process in it would; what leads out or nowhere is not found."""
    for name in ("/bin/tool", "/usr/bin/alias", "//usr/./bin/../bin/tool"):
        assert resolved(image.root, name) == "/bin/tool"
    for name in ("/bin/out", "/loop", "/nothing"):
        with pytest.raises(OSError):
            resolved(image.root, name)


def test_a_file_that_nobody_touched_is_not_read_again(image: Image) -> None:
    """Its sum was that of the image when it was opened."""
    claimed = replace(image, executables={"/bin/tool": "a" * 64})
    assert Programs(claimed).executed(Command(("/usr/bin/alias",))) == {"path": "/bin/tool", "sha256": "a" * 64}
    assert Programs(image).executed(Command(("../bin/alias",), cwd="/usr")) is not None
    assert Programs(image).executed(Command(("tool",))) is None


def test_a_file_that_was_changed_is_read_whatever_its_times_say(image: Image) -> None:
    """Sabotage: the same length, and the time of its last change to its content set back."""
    own, file = Programs(image), image.root / "bin/tool"
    before = file.stat()
    file.write_bytes(b"tooL")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    told = own.executed(Command(("/bin/tool",)))
    assert told == {"path": "/bin/tool", "sha256": content_sum(b"tooL")}
    assert "another program was executed" in str(objection({"program": told}, image.executables))
    file.unlink()
    gone = own.executed(Command(("/bin/tool",)))
    assert gone and "nothing any more" in str(objection({"program": gone}, image.executables))


@pytest.mark.parametrize(
    ("told", "objects"),
    [
        (None, False),
        ({"path": "/bin/tool", "sha256": "a" * 64}, False),
        ({"path": "/bin/tool", "sha256": "b" * 64}, True),
        ({"path": "/tmp/own", "sha256": "b" * 64}, False),
        ([{"path": "/bin/tool", "sha256": "a" * 64}, {"path": "/bin/tool", "sha256": "c" * 64}], True),
        ([None, {"path": "/bin/other", "sha256": "b" * 64}], False),
    ],
)
def test_only_another_sum_for_a_program_of_the_image_is_an_objection(told: Any, objects: bool) -> None:
    """What nobody told, and what is no program of it, is not judged; of several, each."""
    assert (objection({"program": told} if told else {}, OWN) is not None) is objects
