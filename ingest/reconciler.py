"""Compare the folder with the record: what came, changed, moved, went."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingest.errors import DocumentsFolderMissing, FileChanging, UnreadableFile
from ingest.values import FileFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ingest.values import KnownFile

DEFAULT_COLLECTION = "default"
_TEMPORARY_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".download", ".swp", ".swx", ".lock", "~")
_TEMPORARY_NAMES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file in the folder. changed_ns: the later of its modification and its metadata change."""

    path: str
    facts: FileFacts
    changed_ns: int


@dataclass(slots=True)
class Scan:
    """What a walk over the folder saw.

    unreadable: folders (relative, posix) that could not be listed, with the reason; what the record knows
    below them is not taken for deleted. skipped: links, devices, sockets, FIFOs, names that are not UTF-8.
    """

    files: dict[str, FoundFile] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do; `fresh` are new or changed files, `gone` may turn out to have moved."""

    fresh: tuple[FoundFile, ...]
    gone: tuple[KnownFile, ...]
    n_unchanged: int


def collection_of(path: str) -> str:
    """Return the collection of a document: its first-level folder, or `default` for files at the top."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else DEFAULT_COLLECTION


def is_temporary(name: str) -> bool:
    """Tell hidden, temporary and half-downloaded files by their names."""
    lower = name.lower()
    return name.startswith((".", "~$")) or lower.endswith(_TEMPORARY_SUFFIXES) or lower in _TEMPORARY_NAMES


def scan(root: Path) -> Scan:
    """Walk the folder; links and special files are never followed. Raises DocumentsFolderMissing."""
    if not root.is_dir():
        raise DocumentsFolderMissing(
            f"the documents folder {root} does not exist; nothing is taken for deleted"
        )
    result = Scan()
    pending = [("", os.fspath(root))]
    while pending:
        relative, folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    _look_at(entry, f"{relative}{entry.name}", result, pending)
        except OSError as error:
            if not relative:
                raise DocumentsFolderMissing(
                    f"the documents folder {root} cannot be read: {error.strerror}"
                ) from error
            if error.errno != errno.ENOENT:
                result.unreadable[relative] = f"the folder cannot be read: {error.strerror}"
    return result


def _look_at(entry: os.DirEntry[str], path: str, result: Scan, pending: list[tuple[str, str]]) -> None:
    if is_temporary(entry.name):
        return
    try:
        path.encode()
    except UnicodeEncodeError:
        result.skipped.append(path.encode("utf-8", "backslashreplace").decode())
        return
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(facts.st_mode):
        pending.append((f"{path}/", entry.path))
    elif stat.S_ISREG(facts.st_mode):
        result.files[path] = FoundFile(path, _facts(facts), max(facts.st_mtime_ns, facts.st_ctime_ns))
    else:
        result.skipped.append(path)


def compare(found: Scan, known: Mapping[str, KnownFile]) -> Plan:
    """Compare by size, modification time and inode; content is read only of what differs there.

    A failed file is tried again in every pass, a quarantined one when it changes.
    """
    fresh: list[FoundFile] = []
    n_unchanged = 0
    for path, file in sorted(found.files.items()):
        old = known.get(path)
        if old is not None and old.facts == file.facts and old.state != "failed":
            n_unchanged += 1
        else:
            fresh.append(file)
    gone = tuple(
        old
        for path, old in known.items()
        if path not in found.files and not any(path.startswith(folder) for folder in found.unreadable)
    )
    return Plan(tuple(fresh), gone, n_unchanged)


def settles_in(file: FoundFile, settle_seconds: float) -> float:
    """Return the seconds until the file has rested long enough to be read; 0 when it has.

    A time in the future (a wrong clock) counts as rested.
    """
    age = time.time() - file.changed_ns / 1e9
    return max(0.0, settle_seconds - age) if age >= 0 else 0.0


@contextlib.contextmanager
def opened(root: Path, path: str) -> Iterator[tuple[int, FileFacts, bytes]]:
    """Open a document without following links anywhere below the root; yield descriptor, facts and sha256.

    Every folder on the way is opened with O_NOFOLLOW from its parent's descriptor, so that a link put in
    after the scan leads nowhere. Raises UnreadableFile, or FileChanging when the
    file changed while it was read.
    """
    descriptor = _open_below(root, path)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise UnreadableFile("is not a regular file any more")
        digest = hashlib.sha256()
        try:
            while block := os.read(descriptor, 1 << 20):
                digest.update(block)
        except OSError as error:
            raise UnreadableFile(f"cannot be read: {error.strerror}") from error
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FileChanging(f"{path} changes while it is read")
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor, _facts(after), digest.digest()
    finally:
        os.close(descriptor)


def _open_below(root: Path, path: str) -> int:
    parts = PurePosixPath(path).parts
    # O_NONBLOCK: opening a FIFO would wait for a writer.
    leaf_flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    folder_flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                child = os.open(part, folder_flags, dir_fd=folder)
                os.close(folder)
                folder = child
            return os.open(parts[-1], leaf_flags, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError as error:
        raise FileChanging(f"{path} is gone again") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnreadableFile("is a symbolic link; links are not followed") from error
        raise UnreadableFile(f"cannot be opened: {error.strerror}") from error


def _facts(facts: os.stat_result) -> FileFacts:
    return FileFacts(size=facts.st_size, mtime_ns=facts.st_mtime_ns, inode=facts.st_ino)
