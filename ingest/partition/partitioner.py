"""The parent's side of reading: start the child, hand it descriptors, end it when it must."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import ingest.errors
from ingest.errors import LimitExceeded, PartitionCrashed, PartitionError, UnsupportedFormat
from ingest.partition import formats, old_office
from ingest.partition.limits import Limits
from ingest.values import ChunkDraft, Element, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ingest.partition.page_log import PageStore
    from ingest.units import CountTokens

# A child lives for a batch: readers leak, and a fresh one costs a second of imports.
DOCUMENTS_PER_CHILD = 200
_START_SECONDS = 60.0
_ANSWER_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Cut:
    """A document that was read and cut into chunks."""

    title: str
    chunks: tuple[ChunkDraft, ...]
    offsets_in_file: bool


class Partitioner:
    """Read documents one after the other in a child process; not for several threads at once."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        count_tokens: CountTokens | None = None,
        pages: PageStore | None = None,
    ) -> None:
        """Prepare to read; count_tokens, which the child gets pickled, is only needed for `cut`.

        pages: where the pages of long documents are kept until the whole is read.
        """
        self._pages = pages
        self.limits = limits or Limits()
        self._count_tokens = count_tokens
        self.protections: dict[str, bool] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._office: subprocess.Popen[bytes] | None = None  # LibreOffice, while it makes what is read
        self._channel: socket.socket | None = None
        self._folder: str | None = None
        self._n_documents = 0
        self._interrupted = False

    def __enter__(self) -> Partitioner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def partition(self, descriptor: int, *, suffix: str) -> list[Element]:
        """Read the open file; raises PartitionError with a reason, whatever the file does to the child."""
        answer = self._ask(descriptor, {"suffix": suffix})
        return [_element(fields) for fields in answer["elements"]]

    def cut(self, descriptor: int, *, path: str, budget: int, limit: int, sha256: bytes = b"") -> Cut:
        """Read the open file and cut it into chunks; `budget` and `limit` as in `chunk`.

        sha256: of the file, where pages that were read before are to be read no second time.

        Raises PartitionError with a reason, whatever the file does to the child.
        """
        name = PurePosixPath(path).name  # a path may be longer than a request
        request = {"suffix": PurePosixPath(path).suffix, "path": name, "budget": budget, "limit": limit}
        answer = self._ask(descriptor, request, sha256)
        chunks = tuple(_draft(fields) for fields in answer["chunks"])
        return Cut(answer["title"], chunks, answer["offsets_in_file"])

    def _ask(self, descriptor: int, request: dict[str, Any], sha256: bytes = b"") -> dict[str, Any]:
        suffix = request["suffix"]
        if not formats.readable(suffix):
            raise UnsupportedFormat(formats.no_reader(suffix, alone=True))
        self._check_size(descriptor)
        if not old_office.is_old(suffix):
            return self._ask_child(descriptor, request, sha256)
        if (kind := old_office.kind_of(descriptor, suffix)) is not None:
            return self._ask_child(descriptor, request | {"suffix": kind}, sha256)
        if (office := old_office.program()) is None:
            raise UnsupportedFormat(formats.no_reader(suffix, alone=True))
        if self._interrupted:
            raise PartitionCrashed("reading was stopped")
        with old_office.converted(
            descriptor, suffix, self.limits, office=office, started=self._watch_office
        ) as (made, kind):
            self._check_size(made)
            return self._ask_child(made, request | {"suffix": kind}, sha256)

    def _watch_office(self, office: subprocess.Popen[bytes] | None) -> None:
        self._office = office
        if office is not None and self._interrupted:
            office.kill()

    def _check_size(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size > self.limits.file_bytes:
            raise LimitExceeded(f"is {size} bytes long; the limit is {self.limits.file_bytes}")

    def _ask_child(self, descriptor: int, request: dict[str, Any], sha256: bytes) -> dict[str, Any]:
        suffix = request["suffix"]
        if self._n_documents >= DOCUMENTS_PER_CHILD:
            self.close()
        if self._interrupted:
            raise PartitionCrashed("reading was stopped")
        channel = self._start()
        self._n_documents += 1
        deadline = time.monotonic() + self.limits.wall_seconds
        try:
            with self._known_pages(suffix, sha256) as pages:
                socket.send_fds(channel, [json.dumps(request).encode()], [descriptor, *pages])
            answer = self._receive(channel, deadline)
            n_slow = 0
            while "page" in answer and self._pages is not None:
                self._pages.append(sha256, answer["page"], answer["lines"])
                if answer["slow"] and n_slow < self.limits.ocr_pages:
                    n_slow += 1
                    deadline = time.monotonic() + self.limits.wall_seconds
                answer = self._receive(channel, deadline)
        except (TimeoutError, EOFError, ConnectionError) as error:
            raise PartitionCrashed(self._autopsy(error)) from None
        if answer.get("exit"):
            self.close()
        if "error" in answer:
            kind = getattr(ingest.errors, answer["error"], PartitionError)
            raise kind(answer["reason"])
        return answer

    @contextlib.contextmanager
    def _known_pages(self, suffix: str, sha256: bytes) -> Iterator[list[int]]:
        """Open the pages of a document that were read before; nothing for what has no pages to keep."""
        if self._pages is None or not sha256 or not formats.is_paged(suffix):
            yield []
            return
        path = self._pages.path(sha256)
        descriptor = os.open(path if path.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield [descriptor]
        finally:
            os.close(descriptor)

    def interrupt(self) -> None:
        """End the document under way and refuse further ones; from any thread."""
        self._interrupted = True
        for process in (self._child, self._office):
            if process is not None:
                process.kill()

    def close(self) -> None:
        """End the child and remove its folder."""
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            # It ends by itself when the socket closes; what hangs in a document is killed.
            self._child.kill()
            self._child.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._child = self._channel = self._folder = None
        self._n_documents = 0

    def _start(self) -> socket.socket:
        if self._channel is not None:
            return self._channel
        self._folder = tempfile.mkdtemp(prefix="quarry-partition-")
        ours, theirs = socket.socketpair()
        with theirs:
            # -I: nothing from the environment or the current folder is imported. The package's own folder
            # is named, because a source tree need not be installed.
            program = (
                "import sys; sys.path.insert(0, sys.argv.pop(1));"
                " from ingest.partition import child; child.start()"
            )
            root = str(Path(ingest.errors.__file__).resolve().parent.parent)
            limits = json.dumps(dataclasses.asdict(self.limits))
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", program, root, str(theirs.fileno()), self._folder, limits],
                env=_environment(self._folder),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # may quote the document
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = ours
        try:
            counter = pickle.dumps(self._count_tokens)
            ours.sendall(len(counter).to_bytes(4, "big") + counter)
            self.protections = self._receive(ours, time.monotonic() + _START_SECONDS)["protections"]
        except (TimeoutError, EOFError, ConnectionError) as error:
            raise PartitionCrashed(f"the reader's process does not start: {self._autopsy(error)}") from None
        return ours

    def _receive(self, channel: socket.socket, deadline: float) -> dict[str, Any]:
        length = int.from_bytes(_exactly(channel, 4, deadline), "big")
        if length > _ANSWER_BYTES:
            raise EOFError("the reader's answer is too long")
        answer: dict[str, Any] = json.loads(_exactly(channel, length, deadline))
        return answer

    def _autopsy(self, error: BaseException) -> str:
        """Say why the child gave no answer, and clear it away."""
        child = self._child
        if isinstance(error, TimeoutError) or child is None:
            self.close()
            return f"took longer than {self.limits.wall_seconds:g} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        code = child.returncode
        self.close()
        if code == -signal.SIGXCPU:
            return f"used more than {self.limits.cpu_seconds} s of processor time"
        if code == -signal.SIGXFSZ:
            return f"wrote more than {self.limits.written_bytes} bytes"
        if code is not None and code < 0:
            return f"the reader's process was ended by {signal.Signals(-code).name}"
        return f"the reader's process ended with status {code}"


def _draft(fields: list[Any]) -> ChunkDraft:
    text, path, page, n_tokens, start, end, n_overlap, searchable, place = fields
    where = None if place is None else Place(*place)
    return ChunkDraft(text, tuple(path), page, n_tokens, start, end, n_overlap, searchable, where)


def _element(fields: list[Any]) -> Element:
    kind, text, level, page, start, end, place = fields
    if place is not None:
        unit, first, last, lines = place
        place = Place(unit, first, last, tuple(lines))
    return Element(kind, text, level, page, start, end, place)


def _exactly(channel: socket.socket, n: int, deadline: float) -> bytes:
    """Receive n bytes; after the deadline, only what is there already: this process may have been stopped."""
    data = bytearray()
    while len(data) < n:
        channel.settimeout(max(deadline - time.monotonic(), 0.0))
        try:
            piece = channel.recv(min(n - len(data), 1 << 20))
        except BlockingIOError:
            raise TimeoutError from None
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _environment(folder: str) -> dict[str, str]:
    """Return all that the child sees of the environment."""
    return {
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
        "TMPDIR": folder,
        "HOME": folder,
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Several readers share the cores already.
        "TOKENIZERS_PARALLELISM": "false",
        # Fewer arenas: address space is limited, and each arena reserves 64 MiB of it.
        "MALLOC_ARENA_MAX": "2",
    }
