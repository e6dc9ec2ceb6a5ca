"""Packages of the distribution become a tree: what is asked for, what is kept, what is said when it cannot be had."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchbox import images, workloads
from benchbox.errors import EnvironmentFailure, ImageError
from benchbox.images import debian, debian_start, distribution, inventory, own, tree
from benchbox.images.distribution import Source
from benchbox.images.tree import Entry, character_device, file, folder, link
from benchbox.linux import trust
from benchbox.linux.processes import Completed

#: The beginning of what ``apt-config dump`` of apt 2.6 prints on a host with a proxy, and some of its other lines.
DUMP = """\
APT "";
APT::Architecture "amd64";
Acquire::AllowInsecureRepositories "0";
Acquire::Check-Valid-Until "false";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3142/";
Acquire::http::Proxy::deb.example "DIRECT";
Acquire::https::Verify-Peer "1";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
Dir::Etc::sourcelist "sources.list";
"""

#: What mmdebstrap 1.3.5 says when a mirror cannot be reached.
REFUSED = """\
I: running apt-get update...
Err:1 http://127.0.0.1:1/debian bookworm InRelease
  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: Connection refused)
E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> failed
"""


def test_the_command_names_packages_release_sources_and_settings() -> None:
    """Nothing of the host's that it does not name."""
    source = Source("trixie", (Path("/etc/apt/a.list"), Path("/b.sources")), ('Acquire::Retries "3";',))
    words = distribution.words(("one", "two"), source, Path("/cache/made"))
    assert words[0] == "mmdebstrap"
    assert "--include=one,two" in words and '--aptopt=Acquire::Retries "3";' in words
    assert words[-4:] == ["trixie", "/cache/made", "/etc/apt/a.list", "/b.sources"]
    (before,) = [word for word in words if word.startswith("--setup-hook=")]
    assert all(f" {name}" in before for name in distribution.SCRIPTS_ONLY)


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n', "bookworm"),
        ('NAME="Ubuntu"\nVERSION_CODENAME="noble"\n', "noble"),
        ("ID=fedora\nVERSION_ID=40\n", distribution.FALLBACK_SUITE),
        ("VERSION_CODENAME=\n", distribution.FALLBACK_SUITE),
        ("VERSION_CODENAME=--help\n", distribution.FALLBACK_SUITE),
        ("", distribution.FALLBACK_SUITE),
    ],
)
def test_the_release_is_the_host_s(text: str, suite: str) -> None:
    """Where it names one."""
    assert distribution.suite_of(text) == suite


def test_sources_are_the_files_that_apt_reads(tmp_path: Path) -> None:
    """Not those that somebody has put aside."""
    (tmp_path / "sources.list.d").mkdir()
    for name in ("sources.list", "sources.list.d/b.sources", "sources.list.d/a.list", "sources.list.d/c.list.off"):
        (tmp_path / name).touch()
    found = distribution.source_files(tmp_path)
    assert [path.name for path in found] == ["sources.list", "a.list", "b.sources"]
    assert distribution.source_files(tmp_path / "none") == ()


def test_settings_are_those_that_say_how_to_reach_the_sources() -> None:
    """Proxies, certificates, dates; nothing that would change which signatures are asked for or where files lie."""
    assert distribution.acquire_options(DUMP) == (
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.example:3142/";',
        'Acquire::http::Proxy::deb.example "DIRECT";',
        'Acquire::https::Verify-Peer "1";',
    )


def test_what_belongs_to_this_host_or_to_nobody_is_not_kept() -> None:
    """Devices, documents, logs, what is mounted over; the folders that are mounted on stay."""
    gone = [
        character_device("dev/null", 1, 3), link("dev/fd", "/proc/self/fd"), file("etc/resolv.conf", b"nameserver x"),
        folder("etc/apt"), file("etc/apt/sources.list", b""), file("packages", b""), file("etc/machine-id", b"1"),
        folder("usr/share/doc"), file("usr/share/doc/copyright", b""), file("var/log/apt.log", b""),
        folder("usr/lib/x86_64-linux-gnu/gconv"), file("usr/lib/x86_64-linux-gnu/gconv/BIG5.so", b""),
        folder("var/cache/apt"), file("run/lock", b""), Entry("run/fifo", stat.S_IFIFO | 0o600),
    ]  # fmt: skip
    stays = [
        *map(
            folder, ("dev", "etc", "run", "usr", "usr/bin", "usr/lib", "usr/lib/x86_64-linux-gnu", "usr/share", "var")
        ),
        *map(folder, ("var/cache", "var/log")),
        link("bin", "usr/bin"),
        file("etc/debian_version", b"12\n"),
        file("usr/bin/python3", b"", 0o755),
    ]
    kept = {entry.path: entry for entry in distribution.kept(tree.ordered([*gone, *stays]))}
    assert not {entry.path for entry in gone} & set(kept)
    assert {entry.path for entry in stays} <= set(kept)
    assert all(kept[entry.path] == entry for entry in stays)


def test_an_image_has_users_a_name_and_what_is_mounted_on() -> None:
    """Unless the packages brought them."""
    kept = {entry.path: entry for entry in distribution.kept([folder("etc"), file("etc/passwd", b"theirs")])}
    assert set(kept) >= {"data", "dev", "proc", "sys", "tmp", "root", "etc/hostname", "etc/group"}
    assert (kept["etc/passwd"].content, kept["etc/hostname"].content) == (b"theirs", b"benchbox\n")
    assert stat.S_IMODE(kept["tmp"].mode) == 0o1777


def test_a_program_has_no_other_rights_than_who_runs_it() -> None:
    """No set-user-id, no set-group-id; and the store can read what it keeps."""
    given = [file("su", b"", 0o4755), file("shadow", b"", 0o000), Entry("games", stat.S_IFDIR | 0o2075)]
    modes = {entry.path: oct(stat.S_IMODE(entry.mode)) for entry in distribution.kept(given)}
    assert {name: modes[name] for name in ("su", "shadow", "games")} == {
        "su": "0o755",
        "shadow": "0o400",
        "games": "0o775",
    }


def test_a_path_that_leaves_the_image_is_refused() -> None:
    """Whatever a package has."""
    for entry in (file("../evil", b""), file("/etc/passwd", b"")):
        with pytest.raises(ImageError, match="no path of its own"):
            distribution.kept([entry])
    with pytest.raises(ImageError, match="no path of its own"):
        distribution.kept([link("lib", "/"), file("lib/evil", b"")])


def test_versions_are_those_of_the_package_files() -> None:
    """With the epoch, which a file name writes otherwise; what is no package is passed over."""
    listing = "libc6_2.36-9+deb12u14_amd64.deb\nredis-server_5%3a7.0.15-1~deb12u10_amd64.deb\nlock\npartial\nx.deb\n"
    assert distribution.versions(listing) == {"libc6": "2.36-9+deb12u14", "redis-server": "5:7.0.15-1~deb12u10"}


def test_what_mmdebstrap_does_is_told_in_few_words() -> None:
    """The rest of what it says is not."""
    said = [distribution.step(f"I: {text}") for text in ("running apt-get update...", "downloading packages with apt")]
    assert said == ["reading what the distribution has", "downloading"]
    assert [distribution.step(text) for text in ("I: success in 5 s", "", "downloading packages", "W: x")] == [None] * 4


def test_the_key_is_made_of_all_that_decides_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of packages is not among it."""
    plain = distribution.key(("a", "b"), "bookworm", "x86_64")
    assert plain == distribution.key(("b", "a"), "bookworm", "x86_64")
    others = {
        distribution.key(("a",), "bookworm", "x86_64"),
        distribution.key(("a", "b"), "trixie", "x86_64"),
        distribution.key(("a", "b"), "bookworm", "aarch64"),
    }
    monkeypatch.setattr(distribution, "LEFT_OUT", ())
    others.add(distribution.key(("a", "b"), "bookworm", "x86_64"))
    assert len(others | {plain}) == 5


# --- made and kept, with a stand-in for mmdebstrap -------------------------------------------------------------------


class Bootstrap:
    """Plays mmdebstrap: makes a small tree, or fails with ``status``."""

    def __init__(self, status: int = 0, says: str = "I: downloading packages with apt...\n") -> None:
        self.status, self.says, self.calls = status, says, 0

    def __call__(
        self, argv: Sequence[str | Path], on_line: Callable[[str], None], *, timeout_s: float, env: Any
    ) -> Completed:
        self.calls += 1
        made = Path(argv[list(argv).index("bookworm") + 1])
        assert Path(env["TMPDIR"]) == made.parent, "what it leaves behind when it is killed is swept with the rest"
        for name in ("usr/bin", "usr/share/doc", "dev", "etc"):
            (made / name).mkdir(parents=True)
        (made / "bin").symlink_to("usr/bin")
        (made / "usr/bin/python3").write_text("python")
        (made / "packages").write_text("libc6_2.36_amd64.deb\n")
        for line in self.says.splitlines():
            on_line(line)
        return Completed(("mmdebstrap",), self.status, "", self.says)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    """A host where mmdebstrap works, with an empty cache."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    believed = trust.owners()
    monkeypatch.setattr(trust, "owners", lambda: believed)  # whoever is played, the cache is this user's
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "mmdebstrap" else None)
    monkeypatch.setattr(distribution, "suite_of", lambda text: "bookworm")
    for name in ("ready", "first_answer", "files", "micro", "pingpong", "steady"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(distribution, "program", lambda name: tmp_path / name)
    played = Bootstrap()
    monkeypatch.setattr("benchbox.linux.processes.follow", played)
    return played


def test_the_image_is_made_once_and_told_while_it_is(host: Bootstrap, tmp_path: Path) -> None:
    """A new ready program makes another image of the packages that are there."""
    said: list[str] = []
    image = images.open_image("debian-start", said.append)
    assert said == ["image debian-start: downloading"]
    assert {"/usr/bin/ready", "/usr/bin/first_answer"} <= set(image.executables)
    assert (image.root / "bin/ready").read_text() == "ready"
    assert images.open_image("debian-start") == image
    (tmp_path / "ready").write_text("newer")
    assert images.open_image("debian-start").digest != image.digest
    assert host.calls == 1


def test_packages_that_are_not_as_they_were_made_are_made_again(host: Bootstrap, tmp_path: Path) -> None:
    """They would give another image under the same name."""
    image = images.open_image("debian-start")
    (packages,) = (tmp_path / "cache/distribution").iterdir()
    facts = json.loads((packages / "seal.json").read_text())["facts"]
    assert (facts["suite"], facts["libc6"]) == ("bookworm", "2.36")
    (packages / "root/usr/bin/python3").write_text("changed")
    assert images.open_image("debian-start") == image
    assert host.calls == 2


def test_without_the_name_the_next_run_fetches_anew(host: Bootstrap) -> None:
    """``image rm debian-start`` takes the image and its packages."""
    images.open_image("debian-start")
    for entry in inventory.find(["debian-start"]):
        inventory.remove(entry)
    assert inventory.entries() == []
    images.open_image("debian-start")
    assert host.calls == 2


def test_a_mirror_that_cannot_be_reached_is_said_with_mmdebstrap_s_last_words(host: Bootstrap, tmp_path: Path) -> None:
    """And what to check; nothing half-made stays."""
    host.status, host.says = 25, REFUSED
    with pytest.raises(
        ImageError, match=r"image debian-start: mmdebstrap could not make it \(exit status 25\)"
    ) as error:
        images.open_image("debian-start")
    assert "Could not connect to 127.0.0.1:1" in error.value.message
    assert "apt-get update" in str(error.value.hint)
    assert list((tmp_path / "cache/distribution").iterdir()) == []


def test_what_takes_too_long_is_said(host: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of the image."""

    def never(*words: object, **options: object) -> Completed:
        raise EnvironmentFailure("mmdebstrap: not done after 900 s")

    monkeypatch.setattr("benchbox.linux.processes.follow", never)
    with pytest.raises(ImageError, match="image debian-start: mmdebstrap: not done after 900 s"):
        images.open_image("debian-start")


def test_a_host_without_mmdebstrap_is_told_what_to_install(host: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ImageError, match="image debian-start: mmdebstrap is not installed") as error:
        images.open_image("debian-start")
    assert error.value.hint == "Debian, Ubuntu: apt install mmdebstrap"
    assert host.calls == 0


def test_an_ordinary_user_is_told_that_it_takes_root(host: Bootstrap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the image is there it does not."""
    made = images.open_image("debian-start")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert images.open_image("debian-start") == made
    for entry in inventory.find(["distribution"]):
        inventory.remove(entry)
    with pytest.raises(ImageError, match="unpacking a distribution needs root") as error:
        images.open_image("debian-start")
    assert "root" in str(error.value.hint)


def test_every_package_that_a_workload_needs_is_asked_for_by_name() -> None:
    """The check of scenarios reads the list, not the image."""
    assert images.PACKAGES == {"debian-start": debian_start.PACKAGES, "debian": debian.PACKAGES}
    assert {"python3-minimal", "redis-server"} <= set(debian_start.PACKAGES)
    assert set(workloads.PACKAGES.values()) <= set(debian.PACKAGES)


def test_a_list_of_packages_is_a_name_a_line() -> None:
    """With remarks; the list of ``debian`` has each name once, and none that apt would take for something else."""
    assert debian.packages("# a\nfio  # disk\n\n  zstd\n") == ("fio", "zstd")
    assert len(set(debian.PACKAGES)) == len(debian.PACKAGES) > 20
    assert all(own.PACKAGE_NAME.fullmatch(name) for name in debian.PACKAGES)
    assert {"fio", "sysbench", "stress-ng", "iperf3", "sockperf", "openssl", "zstd", "sqlite3", "wrk"} <= set(
        debian.PACKAGES
    )
