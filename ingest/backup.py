"""Backup and restore of the record; the indexes are derived from it and need none."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING

from ingest.connection import named_errors
from ingest.errors import RecordError
from ingest.ownership import acquire
from ingest.schema import MIGRATIONS

if TYPE_CHECKING:
    from pathlib import Path

RECORD_NAME = "record.sqlite3"
INDEXES_NAME = "indexes"


def write_backup(record: Path, out: Path) -> None:
    """Write the record as it is at one moment to `out`; writing into the record goes on meanwhile.

    Raises RecordError or StorageFull; `out` then does not exist, and what was there before stays.
    """
    unfinished = out.with_name(f"{out.name}.part")
    unfinished.unlink(missing_ok=True)
    try:
        with (
            named_errors(out),
            contextlib.closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(unfinished)) as target,
        ):
            # All pages in one step: one read transaction, so one state of the record.
            source.backup(target, pages=-1)
            target.execute("PRAGMA journal_mode=DELETE")
        check_backup(unfinished)
        _sync(unfinished)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def check_backup(path: Path) -> None:
    """Raise RecordError unless `path` is a whole record that this Quarry can read."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            known = connection.execute("SELECT count(*) FROM meta WHERE key = 'library_id'").fetchone()[0]
    except sqlite3.Error as error:
        raise RecordError(f"{path} is not a backup of a library: {error}") from error
    if found != "ok":
        raise RecordError(f"{path} is damaged: {found}")
    if not known or not 1 <= version <= len(MIGRATIONS):
        raise RecordError(f"{path} has schema {version}; this Quarry reads 1 to {len(MIGRATIONS)}")


def restore(source: Path, data_dir: Path) -> None:
    """Put a backup in the place of the record in `data_dir`; the indexes are built anew at the next start.

    Raises LibraryLocked while a process uses the folder, RecordError when `source` is no whole backup.
    """
    check_backup(source)
    lock = acquire(data_dir)
    try:
        record = data_dir / RECORD_NAME
        arriving = data_dir / f"{RECORD_NAME}.restored"
        try:
            shutil.copyfile(source, arriving)
            check_backup(arriving)
            _sync(arriving)
            # Before the switch: the log of the old record must not be read into the new one.
            _fold_log(record)
            shutil.rmtree(data_dir / INDEXES_NAME, ignore_errors=True)
            arriving.replace(record)
        except OSError as error:
            raise RecordError(f"{source} cannot be restored: {error.strerror}") from error
        finally:
            arriving.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _fold_log(record: Path) -> None:
    """Close the record's log: written into it where it can be read, else removed with what it belongs to."""
    if record.exists():
        try:
            with contextlib.closing(sqlite3.connect(record)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error:
            record.unlink()
    for name in (f"{record.name}-wal", f"{record.name}-shm"):
        record.with_name(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
