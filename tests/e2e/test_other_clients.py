"""More clients that nobody here wrote: npm's openai, Vercel's AI SDK, LlamaIndex, curl, agents."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from tests.conftest import REPOSITORY
from tests.e2e.langchain_client import chat_openai, check_agents, opening_hours
from tests.e2e.serving import Served

CLIENTS_PYTHON = REPOSITORY / ".venv-clients" / "bin" / "python"


def run_json(command: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """Run a client that prints one JSON object."""
    environment = os.environ | {"DO_NOT_TRACK": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def run_node(folder: Path, script: str, served: Served) -> dict[str, Any]:
    return run_json(["node", script, f"{served.url}/v1", served.chat_name], folder)


def test_openai_of_npm(backup_service: Served, node_folder: Path) -> None:
    said = run_node(node_folder, "openai.mjs", backup_service)
    assert "02:40" in said["whole"]
    assert "02:40" in said["streamed"]
    assert said["sources"][0] == "ops/backup.md"
    assert (said["first"], said["last"]) == ("response.created", "response.completed")
    assert isinstance(said["hour"], int)
    assert said["called"] == {"name": "weather", "arguments": '{"place": "Oslo"}'}
    assert said["dimensions"] == [384, 384]
    assert said["stores"] == ["ops"]
    assert said["error"] == ["BadRequestError", 400, "unsupported_parameter", "store"]


def test_vercel_ai_sdk(backup_service: Served, node_folder: Path) -> None:
    """Its two packages for OpenAI, over chat completions and over responses."""
    said = run_node(node_folder, "ai_sdk.mjs", backup_service)
    for provider in ("compatible", "chat", "responses"):
        told = said[provider]
        assert "02:40" in told["whole"]
        assert told["streamed"] == told["whole"]
        assert told["tokens"] > 0
        assert isinstance(told["hour"], int)
        assert told["called"] == told["calls"] == ["Rain in Oslo."]
    assert [said[provider]["sources"] for provider in ("chat", "responses")] == [1, 1]
    assert "02:40" in said["searched"]["text"]
    assert said["searched"]["files"] == ["backup.md"]
    assert said["dimensions"] == [384, 384, 384]
    assert said["error"][0] == 404
    assert "nobody" in said["error"][1]


@pytest.mark.skipif(
    not CLIENTS_PYTHON.exists(), reason="it wants an older openai: make clients installs both"
)
def test_llama_index(backup_service: Served) -> None:
    script = Path(__file__).with_name("llama_index_client.py")
    command = [CLIENTS_PYTHON, script, f"{backup_service.url}/v1", backup_service.chat_name]
    said = run_json(command, Path.cwd())
    for way in ("whole", "streamed", "completed", "streamed_async", "retrieved", "queried"):
        assert "02:40" in said[way]
    assert said["streamed"] == said["whole"]
    assert said["continued_streamed"] == said["continued"] != ""
    assert said["formed"].keys() == said["formed_by_tool"].keys() == {"hour", "zone"}
    assert said["called"] == "Rain in Oslo."
    assert said["dimensions"] == [384, 384, 384]
    assert said["error"] == ["BadRequestError", "unsupported_parameter"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(backup_service: Served) -> None:
    body = {
        "model": "quarry",
        "stream": True,
        "messages": [{"role": "user", "content": "When does the backup start?"}],
    }
    command = [
        "curl",
        "-sN",
        f"{backup_service.url}/v1/chat/completions",
        "-H",
        "Content-Type: application/json",
    ]
    done = subprocess.run(
        [*command, "-d", json.dumps(body)], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line for line in done.stdout.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert "02:40" in "".join(
        json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]
    )


def test_agent_of_langchain(backup_service: Served) -> None:
    """The model is too small to choose a tool by itself; the loop around it is LangChain's own."""
    model = chat_openai(backup_service, temperature=0)
    agent: Any = create_agent(model, tools=[opening_hours])
    state = agent.invoke({"messages": [{"role": "user", "content": "When does the nightly backup start?"}]})
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    assert last.text


def test_agent_of_langchain_calls_its_tool_and_answers_from_the_result(backup_service: Served) -> None:
    check_agents(chat_openai(backup_service, model=backup_service.chat_name, temperature=0))
