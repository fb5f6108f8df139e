"""What a document's reader cannot do, even when it tries."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ingest.partition.partitioner import _exactly

PROLOGUE = textwrap.dedent(
    """
    import os, socket, subprocess, sys, tempfile
    from ingest.partition import sandbox
    from ingest.partition.limits import Limits
    folder = tempfile.mkdtemp(dir=sys.argv[1])
    active = sandbox.enter(Limits(), folder)
    """
)


def attempt(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), folder],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("socket.create_connection(('127.0.0.1', 9))", id="connect"),
        pytest.param("socket.getaddrinfo('example.com', 80)", id="resolve"),
        pytest.param("subprocess.run(['true'])", id="process"),
        pytest.param("os.system('true')", id="shell"),
        pytest.param("os.fork()", id="fork"),
        pytest.param("open(sys.argv[1] + '/escaped', 'w')", id="write-outside"),
        pytest.param("open('../escaped', 'w')", id="write-above"),
        pytest.param("os.symlink('/etc', sys.argv[1] + '/escaped')", id="link-outside"),
        pytest.param("os.remove(sys.argv[1] + '/keep')", id="remove-outside"),
    ],
)
def test_forbidden_acts_are_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "keep").write_text("x")
    done = attempt(code, tmp_path)
    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    assert (tmp_path / "keep").exists()
    assert not (tmp_path / "escaped").exists()


def test_own_folder_stays_writable(tmp_path: Path) -> None:
    done = attempt("open('inside', 'w').write('x'); print(active)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'limits': True" in done.stdout


def test_network_namespace_has_no_interface(tmp_path: Path) -> None:
    done = attempt("print(active['network_namespace'], os.listdir('/proc/self/net'))", tmp_path)
    if "True" not in done.stdout:
        pytest.skip("this kernel lets no process leave the network")
    # Read through C as well, where no audit hook sees it: only the loopback, and that is down.
    done = attempt("print(open('/proc/self/net/route').read().count('\\n'))", tmp_path)
    assert int(done.stdout) <= 1


def test_memory_is_limited(tmp_path: Path) -> None:
    done = attempt("bytearray(2 << 30)", tmp_path)
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param("open('/etc/passwd')", "PermissionError", id="read-elsewhere"),
        pytest.param(
            "open(os.path.abspath(sandbox.__file__ + '/../../../README.md'))",
            "PermissionError", id="read-project",
        ),
        pytest.param("open(sys.argv[1] + '/keep')", "PermissionError", id="read-beside"),
        pytest.param(
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
            " fd = libc.open((sys.argv[1] + '/escaped').encode(), os.O_CREAT | os.O_WRONLY, 0o600);"
            " sys.exit('refused' if fd < 0 else 0)",
            "refused", id="write-from-c",
        ),
    ],
)  # fmt: skip
def test_kernel_refuses_files_outside(tmp_path: Path, code: str, error: str) -> None:
    (tmp_path / "keep").write_text("x")
    if "'landlock': True" not in attempt("print(active)", tmp_path).stdout:
        pytest.skip("this kernel has no Landlock")
    done = attempt(code, tmp_path)
    assert done.returncode == 1
    assert error in done.stderr
    assert not (tmp_path / "escaped").exists()


def test_answer_that_came_while_this_process_was_stopped_is_taken() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"answer")
        past = time.monotonic() - 60
        assert _exactly(ours, 6, past) == b"answer"
        with pytest.raises(TimeoutError):
            _exactly(ours, 1, past)
        theirs.sendall(b"half")
        with pytest.raises(TimeoutError):
            _exactly(ours, 6, past)
