"""Messages to the kernel about links; that it does as they say is seen in tests/integration/test_network.py."""

import os
import struct
from pathlib import Path

import pytest

from benchbox.linux import links
from benchbox.model import Link


def test_an_attribute_has_its_length_and_is_padded() -> None:
    """As rtnetlink(7) says: the length is without the padding."""
    assert links.attribute(3, b"lo\0") == b"\x07\x00\x03\x00lo\0\0"
    assert links.attribute(10, b"1234") == b"\x08\x00\x0a\x001234"


def test_a_kind_of_link_is_nested_in_its_attribute() -> None:
    """What belongs to the kind comes in a second one."""
    plain = links.info("bridge")
    assert plain == links.attribute(18, links.attribute(1, b"bridge"))
    assert links.info("veth", b"peer")[-8:] == links.attribute(2, b"peer")


def test_a_link_is_raised_by_its_number() -> None:
    """Flag and mask, or nothing of its state is changed."""
    assert struct.unpack("=BxHiII", links.link_message(7, up=True)) == (0, 0, 7, 1, 1)
    assert struct.unpack("=BxHiII", links.link_message(7)) == (0, 0, 7, 0, 0)


def test_an_answer_that_is_an_error_is_raised_and_one_that_is_none_is_not() -> None:
    """The kernel answers everything with a message of that kind."""
    header = struct.pack("=IHHII", 36, 2, 0, 1, 0)
    links.check_answer(header + struct.pack("=i", 0) + bytes(16))
    with pytest.raises(PermissionError):
        links.check_answer(header + struct.pack("=i", -1) + bytes(16))


def test_who_may_not_make_links_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user; a guest where the kernel has no taps."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert links.availability().fix == "run benchbox as root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(links, "_TUN", Path("/no/such/device"))
    assert links.availability().available
    assert links.availability(tap=True).fix == "load it: modprobe tun"


def test_what_a_record_says_of_a_link_is_its_way_and_not_its_descriptors() -> None:
    """Numbers of descriptors mean nothing to anybody else."""
    link = Link("bridge", "tap", "198.18.0.3", 5, 6, "tap3", "02:62:62:00:00:03")
    assert link.applied() == {"path": "bridge", "end": "tap", "address": "198.18.0.3"}
