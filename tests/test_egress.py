"""No connection leaves this machine: the tests under strace. All of them: make egress."""

import os
import re
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# What serves, reads documents, embeds and answers; `make egress` gives the whole folder.
TESTS = os.environ.get("QUARRY_EGRESS_TESTS", "tests/rag/test_served.py tests/ingest/test_library.py").split()
_CONNECT = re.compile(
    r'connect\(\d+, \{sa_family=(AF_INET6?), .*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")'
)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.skipif("QUARRY_TRACED" in os.environ, reason="this is the run that is watched")
@pytest.mark.timeout(7200)
def test_no_connect_outside_loopback(tmp_path: Path) -> None:
    log = tmp_path / "connects"
    command = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(log)]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"QUARRY_TRACED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    written = log.read_text() if log.exists() else ""
    if done.returncode != 0 and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout[-2000:]
    targets = {match[2] or match[3] for match in _CONNECT.finditer(written)}
    assert targets, "no connection was seen at all: nothing was watched"
    assert {target for target in targets if not ip_address(target).is_loopback} == set()
