"""doc, ppt and the files of WPS: made into docx, pptx and xlsx by LibreOffice, where that is installed.

A program of millions of lines then reads what strangers sent. It gets what any reader's process gets, a
folder of its own and nothing else, by the kernel alone: no hook of Python's reaches another program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionCrashed, PartitionError, UnsupportedFormat
from ingest.partition import sandbox
from ingest.partition.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MAKES = {
    ".doc": ".docx", ".dot": ".docx", ".wps": ".docx", ".wpt": ".docx",
    ".ppt": ".pptx", ".pps": ".pptx", ".pot": ".pptx", ".dps": ".pptx", ".dpt": ".pptx",
    ".et": ".xlsx", ".ett": ".xlsx",
}  # fmt: skip
_FILTERS = {
    ".docx": "MS Word 2007 XML",
    ".pptx": "Impress MS PowerPoint 2007 XML",
    ".xlsx": "Calc MS Excel 2007 XML",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# What holds the document inside of an OLE file.
_STREAMS = {".docx": ("WordDocument",), ".pptx": ("PowerPoint Document",), ".xlsx": ("Workbook", "Book")}
_OTHERS = ((b"{\\rtf", ".rtf"), (b"<", ".html"), (b"mime-version:", ".mht"))
_HEAD_BYTES = 64
# What it, and what our own start of it, end with.
_RESTART, _UNCONFINED, _NO_DOCUMENT = 81, 77, 78
# No macros, no links into other files, no questions, no look for updates.
_PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Common/Security/Scripting"><prop oor:name="DisableMacrosExecution"
 oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Security/Scripting"><prop oor:name="MacroSecurityLevel"
 oor:op="fuse"><value>3</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Security/Scripting"><prop oor:name="BlockUntrustedRefererLinks"
 oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Office.Writer/Content/Update"><prop oor:name="Link"
 oor:op="fuse"><value>2</value></prop></item>
<item oor:path="/org.openoffice.Office.Calc/Content/Update"><prop oor:name="Link"
 oor:op="fuse"><value>1</value></prop></item>
</oor:items>
"""


def is_old(suffix: str) -> bool:
    """Tell whether files that end so are what LibreOffice is asked about."""
    return suffix.lower() in _MAKES


def kind_of(descriptor: int, suffix: str) -> str | None:
    """Return what a file that ends so is read as, by its content; None where it takes LibreOffice.

    Word opens whatever is called .doc: Rich Text, pages, newer files. Raises PartitionError for what is none
    of these: LibreOffice takes any bytes for text.
    """
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if head.startswith(b"PK\x03\x04"):
        return _MAKES[suffix.lower()]
    for begins, kind in _OTHERS:
        if head.lstrip(b"\xef\xbb\xbf \r\n\t")[: len(begins)].lower() == begins:
            return kind
    if head.startswith(_OLE):
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
            file.seek(0)
        if any(name.encode("utf-16-le") in content for name in _STREAMS[_MAKES[suffix.lower()]]):
            return None
    raise PartitionError(f"damaged or not a {suffix} file")


@functools.cache
def program() -> Path | None:
    """Return LibreOffice's program, None where it is not installed."""
    for name in ("soffice", "libreoffice"):
        if (found := shutil.which(name)) is not None:
            # The script beside it only prepares what is prepared here.
            binary = Path(found).resolve().with_name("soffice.bin")
            return binary if binary.exists() else None
    return None


@contextlib.contextmanager
def converted(
    descriptor: int,
    suffix: str,
    limits: Limits,
    *,
    office: Path,
    started: Callable[[subprocess.Popen[bytes] | None], None],
) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of what an open file is made into, and its ending; its folder is gone afterwards.

    started: gets the process, to end it from another thread, and None once it has ended. Raises
    PartitionError with a reason.
    """
    suffix = suffix.lower()
    with tempfile.TemporaryDirectory(prefix="quarry-office-", ignore_cleanup_errors=True) as folder:
        profile = Path(folder) / "profile" / "user"
        profile.mkdir(parents=True)
        (profile / "registrymodifications.xcu").write_text(_PROFILE)
        source, made = Path(folder) / f"document{suffix}", Path(folder) / "made" / f"document{_MAKES[suffix]}"
        with open(descriptor, "rb", closefd=False) as original, source.open("wb") as copy:
            original.seek(0)
            shutil.copyfileobj(original, copy)
        _run(office, Path(folder), suffix, limits, started)
        if not made.is_file():
            raise PartitionError(
                f"LibreOffice cannot read it: damaged, protected by a password, or not a {suffix} file"
            )
        result = os.open(made, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield result, _MAKES[suffix]
        finally:
            os.close(result)


def _run(
    office: Path,
    folder: Path,
    suffix: str,
    limits: Limits,
    started: Callable[[subprocess.Popen[bytes] | None], None],
) -> None:
    """Let LibreOffice make `made/document.…` of `document` and its suffix, in a folder that is its /tmp."""
    made = _MAKES[suffix]
    arguments = [
        str(office), "--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck",
        f"-env:UserInstallation=file://{sandbox.OWN_TMP}/profile",
        "--convert-to", f"{made[1:]}:{_FILTERS[made]}",
        "--outdir", f"{sandbox.OWN_TMP}/made", f"{sandbox.OWN_TMP}/document{suffix}",
    ]  # fmt: skip
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        " from ingest.partition import old_office; old_office.start()"
    )
    root = str(Path(__file__).resolve().parent.parent.parent)
    command = [sys.executable, "-I", "-B", "-c", program, root, str(folder), suffix]
    command += [json.dumps(dataclasses.asdict(limits)), *arguments]
    deadline = time.monotonic() + limits.wall_seconds
    status = _RESTART
    while status == _RESTART:
        # With a new profile it ends and wants to be started once more.
        status = _status(command, folder, deadline, limits, started)
    if status == _UNCONFINED:
        raise UnsupportedFormat(
            "LibreOffice is here, but is not run where the kernel cannot confine it (it takes Landlock and"
            f" namespaces): save it as {made}"
        )
    if status == _NO_DOCUMENT:
        raise PartitionError(f"damaged or not a {suffix} file")
    if status == -signal.SIGXCPU:
        raise LimitExceeded(f"LibreOffice used more than {limits.cpu_seconds} s of processor time")
    if status < 0:
        raise PartitionCrashed(f"LibreOffice was ended by {signal.Signals(-status).name}")


def _status(
    command: Sequence[str],
    folder: Path,
    deadline: float,
    limits: Limits,
    started: Callable[[subprocess.Popen[bytes] | None], None],
) -> int:
    child = subprocess.Popen(
        command,
        env={
            "HOME": sandbox.OWN_TMP, "TMPDIR": sandbox.OWN_TMP, "PATH": os.defpath, "LC_ALL": "C.UTF-8",
            "SAL_USE_VCLPLUGIN": "svp",
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # may quote the document
        start_new_session=True,
    )  # fmt: skip
    started(child)
    try:
        return child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise PartitionCrashed(f"LibreOffice took longer than {limits.wall_seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        started(None)


def start() -> None:
    """Confine this process and become LibreOffice: what the new process runs."""
    import olefile  # type: ignore[import-untyped] # it has no stubs; before this process is confined

    folder, suffix, limits, arguments = (
        sys.argv[1],
        sys.argv[2],
        Limits(**json.loads(sys.argv[3])),
        sys.argv[4:],
    )
    if not sandbox.confine_program(limits, folder, Path(arguments[0])):
        sys.exit(_UNCONFINED)
    # What LibreOffice does not know for a document it takes for text.
    try:
        with olefile.OleFileIO(f"{sandbox.OWN_TMP}/document{suffix}") as ole:
            has_document = any(ole.exists(name) for name in _STREAMS[_MAKES[suffix]])
    except Exception:  # noqa: BLE001 - of a broken file, anything
        has_document = False
    if not has_document:
        sys.exit(_NO_DOCUMENT)
    os.execv(arguments[0], arguments)  # noqa: S606 - it is LibreOffice, by its path, and no shell is wanted
