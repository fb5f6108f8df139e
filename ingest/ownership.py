"""One owner of a data folder at a time."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

from ingest.errors import LibraryLocked, RecordError, StorageFull

if TYPE_CHECKING:
    from pathlib import Path

_DEAD_OWNER_TENTHS = 50


def acquire(data_dir: Path) -> int:
    """Create the data folder and lock it for this process; the kernel unlocks it when the process ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFull(f"the data folder {data_dir} cannot be used: {error.strerror}") from error
    try:
        _lock(lock)
    except BlockingIOError:
        owner = _owner(lock)
        os.close(lock)
        raise LibraryLocked(
            f"the data folder {data_dir} is in use by process {owner or 'unknown'};"
            " stop it, or set QUARRY_DATA_DIR to another folder"
        ) from None
    except OSError as error:
        os.close(lock)
        raise RecordError(f"the data folder {data_dir} cannot be locked: {error.strerror}") from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _lock(lock: int) -> None:
    """Lock the file; wait only for an owner that is dead. Raises BlockingIOError.

    A process that was killed while it started a reader leaves its lock to that reader, for the moment until
    it runs its own program.
    """
    pause = threading.Event()
    for _ in range(_DEAD_OWNER_TENTHS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _is_alive(_owner(lock)):
                raise
            pause.wait(0.1)
        else:
            return
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip()


def _is_alive(pid: str) -> bool:
    """Tell whether a process runs; True where that cannot be known."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError, OverflowError):
        return True
    return True
