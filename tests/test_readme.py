"""Every command in the READMEs, run in their order in a copy of the checkout.

A block that is not run carries `<!-- test: skip: REASON -->` above it; one that goes on running carries
`<!-- test: background -->`, and the next block runs once it says that it is ready.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import free_port, running

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<marker>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; marker: "", "background" or "skip: REASON"."""

    language: str
    text: str
    marker: str


def blocks(readme: str) -> list[Block]:
    """Give the fenced blocks of a README in their order."""
    text = (ROOT / readme).read_text("utf-8")
    return [Block(m["language"], m["text"], m["marker"] or "") for m in _BLOCK.finditer(text)]


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_block_runs_or_says_why_not(readme: str) -> None:
    found = blocks(readme)
    assert len(found) == (ROOT / readme).read_text("utf-8").count("\n```") // 2
    for block in found:
        assert block.language in {"sh", "python"}, block.text
        assert block.marker in {"", "background"} or re.fullmatch(r"skip: .{10,}", block.marker), block.marker


def test_both_readmes_show_the_same() -> None:
    english, chinese = (blocks(readme) for readme in READMES)
    assert [block.language for block in english] == [block.language for block in chinese]
    assert [block.marker[:4] for block in english] == [block.marker[:4] for block in chinese]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("readme", READMES, ids=str)
def test_commands_run(readme: str, tmp_path: Path, starter_models: Path) -> None:
    copy = _copy_checkout(tmp_path / "quarry")
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("QUARRY_")},
        "PATH": f"{copy / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "QUARRY_PORT": str(port),
        "QUARRY_MODELS_DIR": str(starter_models),
    }
    runnable = [block for block in blocks(readme) if not block.marker.startswith("skip")]
    assert runnable[0].marker == "background"
    with running(["bash", "-c", runnable[0].text], copy, environment) as output:
        for block in runnable[1:]:
            text = block.text.replace("8080", str(port))
            command = (
                ["bash", "-euo", "pipefail", "-c", text]
                if block.language == "sh"
                else [sys.executable, "-c", text]
            )
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}\n{''.join(output)}"
            assert done.stdout.strip(), f"{block.text} printed nothing"
            assert '"error"' not in done.stdout, done.stdout
            if "status 429" in block.text:
                assert "the-engine.docx" in done.stdout
            if "documents/recipes" in block.text:
                assert "recipes/" in done.stdout


def _copy_checkout(copy: Path) -> Path:
    """Copy the tracked files, with the environment as a link to the one that runs this test."""
    if not (ROOT / ".venv" / ".engine").exists():
        pytest.skip("the environment was not made by make: make setup-dev")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
            # Older than every stamp: make must find nothing to do, or it would tie .venv to the copy.
            os.utime(copy / name, (0, 0))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy
