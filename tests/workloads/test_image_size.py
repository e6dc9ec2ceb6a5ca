"""What an image weighs, as a workload reads it."""

import pytest

from benchbox.model import Metric, Outcome
from benchbox.workloads import workload


def parse(text: bytes) -> tuple[Metric, ...]:
    return workload("image-size").parse(Outcome("ok", output_tail=text))


def test_sizes_are_read_with_their_units() -> None:
    """Less is better."""
    found = parse(b'{"size.gzip": [1234, "B"], "size.build": [0.5, "s"]}')
    assert found == (Metric("size.gzip", 1234, "B"), Metric("size.build", 0.5, "s"))
    assert not workload("image-size").command({}).signals_ready


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"12", b'{"size.gzip": [1234, "B"]', b'{"size.gzip": 5}', b'{"size.gzip": [1]}',
        b'{"other": [1, "B"]}', b'{"size.gzip": [-1, "B"]}', b'{"size.gzip": [1, "GB"]}',
        b'{"size.gzip": ["1", "B"]}', b'{"size.gzip": [NaN, "B"]}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(text: bytes) -> None:
    """With what was found."""
    with pytest.raises(ValueError, match="expected sizes by name, got"):
        parse(text)
