"""SQLite connections of the record: one writer behind a lock, one reader per thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING

from ingest.errors import LibraryClosed, RecordError, StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL:
            raise StorageFull(f"cannot write {path.name}: {error}; free space or make it writable") from error
        raise RecordError(f"{path.name}: {error}") from error


class Connections:
    """Own every connection to one SQLite file in WAL mode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._reader_lock = threading.Lock()  # its own: a long write must not hold up new readers
        self._local = threading.local()
        self._readers: dict[threading.Thread, sqlite3.Connection] = {}
        self._closed = False
        self._idle = threading.Condition()  # notified when a thread stops reading
        self._n_reading = 0
        with named_errors(path):
            self._writer = self._connect()
            try:
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute("PRAGMA synchronous=FULL")
                # Deleted text must not survive in free pages of the file.
                self._writer.execute("PRAGMA secure_delete=ON")
                self._writer.execute("PRAGMA foreign_keys=ON")
            except sqlite3.Error:
                self._writer.close()
                raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)

    def _new_reader(self) -> sqlite3.Connection:
        """Open this thread's reader, and close those of threads that have ended: pools come and go."""
        reader = self._connect()
        reader.execute("PRAGMA query_only=ON")
        self._local.reader = reader
        with self._reader_lock:
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            self._readers[threading.current_thread()] = reader
        return reader

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's reader inside one snapshot: all statements see one state."""
        with self._counted_reader(), named_errors(self.path):
            reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
            if reader is None:
                reader = self._new_reader()
            if reader.in_transaction:
                yield reader
                return
            reader.execute("BEGIN")
            try:
                yield reader
            finally:
                reader.execute("COMMIT")

    @contextlib.contextmanager
    def _counted_reader(self) -> Iterator[None]:
        """Keep close() waiting: SQLite crashes when a connection is closed under a statement."""
        with self._idle:
            if self._closed:
                raise LibraryClosed(f"{self.path.name} is closed")
            self._n_reading += 1
        try:
            yield
        finally:
            with self._idle:
                self._n_reading -= 1
                self._idle.notify_all()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the writer inside one transaction; any error rolls all of it back."""
        with self._lock, named_errors(self.path):
            if self._closed:
                raise LibraryClosed(f"{self.path.name} is closed")
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk has already rolled back
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def maintaining(self) -> Iterator[sqlite3.Connection]:
        """Yield the writer outside of any transaction, for VACUUM and checkpoints."""
        with self._lock, named_errors(self.path):
            yield self._writer

    def close(self) -> None:
        """Refuse new reads, wait for those under way, then close every connection of every thread."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._n_reading == 0)
        with self._lock, self._reader_lock:
            for connection in [self._writer, *self._readers.values()]:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            self._readers.clear()
