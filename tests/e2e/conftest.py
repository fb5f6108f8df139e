"""What several of the clients need: one service over one small library, and npm's packages."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.settings import Settings
from tests.e2e.serving import Served, serve

NODE = Path(__file__).parent / "node"
BACKUP = "# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on heron-3.\n"


@pytest.fixture(scope="package")
def backup_service(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    """A service that knows one document, ops/backup.md."""
    folder = tmp_path_factory.mktemp("backups")
    (folder / "documents" / "ops").mkdir(parents=True)
    (folder / "documents" / "ops" / "backup.md").write_text(BACKUP)
    settings = Settings(answer_tokens=48)
    with serve(folder, settings, chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


@pytest.fixture(scope="package")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of tests/e2e/node with the packages that they import."""
    if "QUARRY_TRACED" in os.environ:
        pytest.skip("npm fetches packages, and this run shows that nothing else does (test_egress.py)")
    if shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(NODE, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"no npm registry: {installed.stderr.strip()[-200:]}")
    return folder
