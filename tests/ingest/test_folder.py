"""SECURITY 15 in short: `make folder-campaign` does it with 20,000 files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.ingest.folder_campaign import COMMAND


def test_a_folder_in_turmoil_comes_to_rest() -> None:
    done = subprocess.run(
        [*COMMAND, "--files", "600", "--patience", "100"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " 0 faults" in done.stdout
