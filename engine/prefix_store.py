"""Beginnings of prompts on disk: blocks of the KV cache, found again after a restart.

One file a block, named by a keyed hash of the model, of the tenant and of all tokens up to the block's end:
names tell nothing of a prompt, and nobody finds what is not theirs. Each file carries a keyed hash of its
name and block: one that is damaged, or that somebody else has put there, is removed and taken as absent. The
key lies in the folder and goes with it in `forget`.

    MAGIC, hash [32], block

Files are written by a thread of the store's own, whole or not at all; those used longest ago make room.
"""

import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAGIC = b"quarry prefix 1\n"
_SECRET = "secret"  # noqa: S105 - the name of its file
_KEY_BYTES = _HASH_BYTES = 32
_WAITING_BYTES = 64 << 20  # of blocks to be written; what comes beyond is not kept
_REST_SECONDS = 60.0  # after a write that failed: the disk may be full

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What is on disk, and what came of it."""

    n_bytes: int = 0
    n_blocks: int = 0
    n_written: int = 0
    n_damaged: int = 0


class PrefixStore:
    """A folder of blocks, bounded in bytes; thread-safe. Nobody else may use the folder meanwhile."""

    def __init__(self, folder: Path, *, model: bytes, block_bytes: int, limit_bytes: int) -> None:
        """Open or make the folder. `model`: tells apart what computes different blocks for the same tokens.

        Raises: OSError.
        """
        self._folder = folder
        self._model = model
        self._block_bytes = block_bytes
        self._limit_bytes = limit_bytes
        self._lock = threading.Condition()  # of what follows
        self._writing = threading.Lock()  # held while a file is made or all are removed; taken first
        self._names: OrderedDict[str, int] = OrderedDict()  # with their bytes; used longest ago first
        self._n_bytes = 0
        self._waiting: deque[tuple[Sequence[str], Mapping[str, bytes]]] = deque()
        self._waiting_names: set[str] = set()
        self._resting_until = 0.0
        self._n_written = self._n_damaged = 0
        self._stopping = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._secret = self._read_secret()
        self._find_files()
        self._thread = threading.Thread(target=self._run, name="quarry-prefixes", daemon=True)
        self._thread.start()

    def keys(self, tenant: str, tokens: NDArray[np.int32], block_tokens: int) -> Iterator[str]:
        """Yield the names of the full blocks of `tokens`, first to last."""
        name = _hash(self._secret, b"tenant", self._model, tenant.encode())
        for end in range(block_tokens, len(tokens) + 1, block_tokens):
            block = np.ascontiguousarray(tokens[end - block_tokens : end], "<i4").tobytes()
            name = _hash(self._secret, b"block", name, block)
            yield name.hex()

    def __contains__(self, name: str) -> bool:
        """Tell whether a block is kept, or about to be."""
        with self._lock:
            return name in self._names or name in self._waiting_names

    def read(self, name: str) -> bytes | None:
        """Return a block, None where it is not kept or not whole."""
        with self._lock:
            if name not in self._names:
                return None
            secret = self._secret
        try:
            data = _read_file(self._folder / name, len(MAGIC) + _HASH_BYTES + self._block_bytes)
        except OSError:  # removed meanwhile, or as good as damaged
            data = b""
        head, block = data[: len(MAGIC) + _HASH_BYTES], data[len(MAGIC) + _HASH_BYTES :]
        whole = len(block) == self._block_bytes
        if not whole or head != MAGIC + _hash(secret, b"file", bytes.fromhex(name), block):
            with self._lock:
                if name in self._names:  # else it made room, or all was forgotten meanwhile
                    self._n_damaged += 1
                    self._remove(name)
                    _log.warning("a kept beginning was damaged; it is computed anew")
            return None
        return block

    def takes(self, n_blocks: int) -> bool:
        """Tell whether so many blocks would be written: not while the disk is full, or too slow for them."""
        with self._lock:
            n_bytes = (len(self._waiting_names) + n_blocks) * self._block_bytes
            return n_bytes <= _WAITING_BYTES and time.monotonic() >= self._resting_until

    def keep(self, names: Sequence[str], blocks: Mapping[str, bytes]) -> None:
        """Note that a beginning was used, blocks named first to last; have `blocks` of it written, soon."""
        with self._lock:
            self._waiting.append((names, blocks))
            self._waiting_names |= blocks.keys()
            self._lock.notify_all()

    def flush(self) -> None:
        """Wait until all that is to be written is."""
        with self._lock:
            self._lock.wait_for(lambda: not self._waiting_names)

    def forget(self) -> None:
        """Remove every block and the key; returns when nothing is left. Raises: OSError."""
        with self._writing, self._lock:
            self._waiting.clear()
            self._waiting_names.clear()
            self._names.clear()
            self._n_bytes = 0
            self._lock.notify_all()
            purge(self._folder)
            self._secret = self._read_secret()

    def status(self) -> StoreStatus:
        """Tell how much is kept."""
        with self._lock:
            return StoreStatus(self._n_bytes, len(self._names), self._n_written, self._n_damaged)

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                names, blocks = self._waiting.popleft()
            # The end of a beginning is given up first: it must be the oldest.
            for name in reversed(names):
                # What `forget` has removed does not come back: it waits for the file that is being made.
                with self._writing:
                    if name in blocks:
                        self._write(name, blocks[name])
                    else:
                        self._touch(name)

    def _touch(self, name: str) -> None:
        with self._lock:
            if name in self._names:
                self._names.move_to_end(name)
                with suppress(OSError):  # on disk the order matters after a restart only
                    os.utime(self._folder / name)

    def _write(self, name: str, block: bytes) -> None:
        with self._lock:
            if name not in self._waiting_names:  # forgotten meanwhile
                return
            head = MAGIC + _hash(self._secret, b"file", bytes.fromhex(name), block)
            n_bytes = len(head) + len(block)
            while self._names and self._n_bytes + n_bytes > self._limit_bytes:
                self._remove(next(iter(self._names)))
            fits = n_bytes <= self._limit_bytes
        error = None
        if fits:
            try:
                _write_file(self._folder / name, head, block)
            except OSError as caught:
                error = caught
        with self._lock:
            self._waiting_names.discard(name)
            if error is not None:
                _log.warning("beginnings of prompts cannot be kept on disk: %s", error.strerror or error)
                self._resting_until = time.monotonic() + _REST_SECONDS
                self._waiting.clear()
                self._waiting_names.clear()
            elif fits:
                self._n_bytes += n_bytes - self._names.pop(name, 0)
                self._names[name] = n_bytes
                self._n_written += 1
            self._lock.notify_all()

    def _remove(self, name: str) -> None:
        self._n_bytes -= self._names.pop(name, 0)
        with suppress(FileNotFoundError):
            (self._folder / name).unlink()

    # The folder.

    def _read_secret(self) -> bytes:
        """Return the key; make one where there is none, and then nothing else can be of use."""
        path = self._folder / _SECRET
        try:
            secret = _read_file(path, _KEY_BYTES)
        except OSError:
            secret = b""
        if len(secret) != _KEY_BYTES:
            purge(self._folder)
            secret = secrets.token_bytes(_KEY_BYTES)
            _write_file(path, secret, b"")
        return secret

    def _find_files(self) -> None:
        """Learn what is there, used longest ago first; remove what is not ours and what is too much."""
        found = []
        for entry in os.scandir(self._folder):
            if entry.name == _SECRET or entry.is_dir(follow_symlinks=False):
                continue
            info = entry.stat(follow_symlinks=False)
            if re.fullmatch(r"[0-9a-f]{64}", entry.name) and entry.is_file(follow_symlinks=False):
                found.append((info.st_mtime_ns, entry.name, info.st_size))
            else:
                Path(entry.path).unlink()
        for _, name, n_bytes in sorted(found):
            self._names[name] = n_bytes
            self._n_bytes += n_bytes
        while self._n_bytes > self._limit_bytes:
            self._remove(next(iter(self._names)))


def purge(folder: Path) -> None:
    """Remove all that a store has left in its folder. Raises: OSError."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()


def _hash(secret: bytes, kind: bytes, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(key=secret, digest_size=_HASH_BYTES, person=kind)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _read_file(path: Path, n_most: int) -> bytes:
    """Read a plain file, one byte more than `n_most` at most. Raises: OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb", buffering=0) as file:
        data = bytearray(n_most + 1)
        n = 0
        while got := file.readinto(memoryview(data)[n:]):
            n += got
    return bytes(data[:n])


def _write_file(path: Path, head: bytes, body: bytes) -> None:
    """Write a file of the user's own, whole or not at all. Raises: OSError."""
    unfinished = path.with_name(path.name + ".part")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(unfinished, flags, 0o600), "wb", buffering=0) as file:
            for data in (head, body):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
