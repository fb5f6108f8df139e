"""More clients that nobody here wrote: npm's openai, curl, LangChain's agents."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from rag.settings import Settings
from tests.e2e.serving import Served, serve

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, starter_chat_gguf: Path, starter_embedding_gguf: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("others")
    (folder / "documents" / "ops").mkdir(parents=True)
    (folder / "documents" / "ops" / "backup.md").write_text(
        "# Backups\n\nThe nightly backup starts at 02:40 and is kept for 35 days on heron-3.\n"
    )
    settings = Settings(answer_tokens=48)
    with serve(folder, settings, chat=starter_chat_gguf, embedding=starter_embedding_gguf) as served:
        yield served


@pytest.mark.skipif(shutil.which("npm") is None, reason="node and npm are not installed")
def test_npm_package(served: Served, tmp_path: Path) -> None:
    for name in ("package.json", "client.mjs"):
        shutil.copy2(NODE / name, tmp_path)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"no npm registry: {installed.stderr.strip()[-200:]}")
    command = ["node", "client.mjs", f"{served.url}/v1", served.chat_name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "02:40" in said["whole"]
    assert "02:40" in said["streamed"]
    assert said["sources"][0] == "ops/backup.md"
    assert (said["first"], said["last"]) == ("response.created", "response.completed")
    assert isinstance(said["hour"], int)
    assert said["called"] == {"name": "weather", "arguments": '{"place": "Oslo"}'}
    assert said["dimensions"] == [384, 384]
    assert said["stores"] == ["ops"]
    assert said["error"] == ["BadRequestError", 400, "unsupported_parameter", "store"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(served: Served) -> None:
    body = {
        "model": "quarry",
        "stream": True,
        "messages": [{"role": "user", "content": "When does the backup start?"}],
    }
    command = ["curl", "-sN", f"{served.url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        [*command, "-d", json.dumps(body)], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line for line in done.stdout.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert "02:40" in "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]
    )


@tool
def opening_hours(day: Literal["Monday", "Sunday"]) -> str:
    """Tell when the office opens on a day."""
    return f"On {day} the office opens at 9."


def test_agent_of_langchain(served: Served) -> None:
    """The model is too small to choose a tool by itself; the loop around it is LangChain's own."""
    model: Any = ChatOpenAI(
        model="quarry", base_url=f"{served.url}/v1", api_key=SecretStr("any"), temperature=0, max_retries=0
    )
    agent: Any = create_agent(model, tools=[opening_hours])
    state = agent.invoke({"messages": [{"role": "user", "content": "When does the nightly backup start?"}]})
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    assert last.text
