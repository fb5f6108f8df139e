"""What the child process gives up before it looks at a document."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.partition import landlock

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DIE_WITH_PARENT = 1
OWN_TMP = "/tmp"  # noqa: S108 - what another program sees there is a folder of its own
# What programs read of the system.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/dev/urandom",
    "/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/sys/devices/system/cpu",
)  # fmt: skip
_FORBIDDEN = (
    "socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
)  # fmt: skip
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


def enter(limits: Limits, folder: str) -> dict[str, bool]:
    """Confine this process to `folder`, without network; return which protections are active."""
    os.chdir(folder)
    return {
        "limits": _limit(limits),
        "network_namespace": _leave_network(),
        "landlock": landlock.confine(readable=_programs(), writable=[folder, os.devnull]),
        "audit_hook": _watch(folder),
    }


def confine_program(limits: Limits, folder: str, program: Path) -> bool:
    """Confine this process before it becomes another program, which no audit hook reaches.

    From then on `folder` is OWN_TMP. False where the kernel does not keep it from files and network: then it
    must not become one.
    """
    _limit(limits)
    allow_cpu(limits)
    libc = ctypes.CDLL(None, use_errno=True)
    # It ends with whoever started it.
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS) != 0:
        return False
    if libc.mount(None, b"/", None, _MS_SLAVE | _MS_REC, None) != 0:
        return False
    if libc.mount(os.fsencode(folder), OWN_TMP.encode(), None, _MS_BIND, None) != 0:
        return False
    os.chdir(OWN_TMP)
    home = program.parent.parent
    # Debian keeps parts of it elsewhere, behind links.
    kept = [f"{place}/{home.name}" for place in ("/etc", "/var/lib", "/var/spool")]
    readable = [*_programs(), str(home), "/etc/fonts", *kept]
    return landlock.confine(
        readable=readable, writable=[OWN_TMP, os.devnull], executable=[str(program), "/lib", "/lib64"]
    )


def _programs() -> list[str]:
    """Name the folders that hold what this process still has to import; documents come as descriptors."""
    package = Path(__file__).resolve().parent.parent
    folders = {os.path.realpath(path) for path in [*sys.path, sys.prefix, sys.base_prefix] if path}
    if not package.is_relative_to(Path(sys.prefix).resolve()):
        # A source tree holds the documents and the data, too: of it, only this package.
        folders = folders - {str(package.parent)} | {str(package)}
    return sorted({*folders, *_SYSTEM})


def allow_cpu(limits: Limits) -> None:
    """Give the next document its CPU seconds; over them the kernel ends the process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + limits.cpu_seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _limit(limits: Limits) -> bool:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.written_bytes, limits.written_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return True


def _leave_network() -> bool:
    """Move into a network namespace that has no interface; not every kernel permits it."""
    libc = ctypes.CDLL(None, use_errno=True)
    unshare = getattr(libc, "unshare", None)
    return unshare is not None and unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def _watch(folder: str) -> bool:
    """Refuse, from Python, sockets, processes and every write outside `folder`."""
    root = os.path.realpath(folder) + os.sep

    def inside(path: object) -> bool:
        if isinstance(path, int):
            return True
        name = os.fsdecode(path) if isinstance(path, (str, bytes)) else str(path)
        return name == os.devnull or os.path.realpath(name).startswith(root)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITE_FLAGS and not inside(path):
                raise PermissionError("a document's reader may write only into its own temporary folder")
        elif event in _FORBIDDEN:
            raise PermissionError(f"a document's reader may not use {event}")
        elif event in _CHANGES and not all(inside(a) for a in arguments if isinstance(a, (str, bytes))):
            raise PermissionError("a document's reader may change only its own temporary folder")

    sys.addaudithook(hook)
    return True
