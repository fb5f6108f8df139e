"""One owner of a data folder at a time."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from ingest.errors import LibraryLocked, RecordError, StorageFull

if TYPE_CHECKING:
    from pathlib import Path


def acquire(data_dir: Path) -> int:
    """Create the data folder and lock it for this process; the kernel unlocks it when the process ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFull(f"the data folder {data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode("ascii", "replace").strip()
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
