"""SECURITY 4 in short: `make hostile-campaign` reads all of them, and watches the readers' system calls."""

from __future__ import annotations

from tests.ingest.hostile_campaign import campaign, chosen, forbidden, take_in
from tests.ingest.hostile_files import BOMBS, HOSTILE


def test_there_are_as_many_as_the_goal_names() -> None:
    assert len(HOSTILE) >= 60
    assert len(BOMBS) >= 40
    assert not HOSTILE.keys() & BOMBS.keys()


def test_hostile_files_harm_nobody() -> None:
    names = chosen(12)
    assert campaign(names) == []
    assert take_in(names) == []


def test_forbidden_calls_are_told_apart() -> None:
    """The judge of the whole campaign must be able to condemn."""
    allowed = ("/tmp/reader",)  # noqa: S108 - nothing is written there
    assert forbidden("socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 5", allowed)
    assert forbidden('openat(AT_FDCWD, "/home/x", O_WRONLY|O_CREAT, 0666) = 5', allowed)
    assert forbidden('rename("/tmp/reader/a", "/tmp/elsewhere") = 0', allowed)
    assert not forbidden('openat(AT_FDCWD, "/home/x", O_WRONLY|O_CREAT, 0666) = -1 EACCES (denied)', allowed)
    assert not forbidden('openat(AT_FDCWD, "/usr/lib/x.py", O_RDONLY|O_CLOEXEC) = 5', allowed)
    assert not forbidden('openat(AT_FDCWD, "/tmp/reader/a", O_RDWR|O_CREAT, 0666) = 5', allowed)
