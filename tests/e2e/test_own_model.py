"""A model of one's own, from a Hugging Face folder to a served answer, each step by its command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from tests.running import free_port, running

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-c", "from rag.cli import main; main()"]
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model with random weights and a chat template, and a text to measure it on."""
    model = tmp_path / "tiny"
    shutil.copytree(ROOT / "tests" / "data" / "tiny" / "qwen2", model)
    config = model / "tokenizer_config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**told, "chat_template": TEMPLATE}), encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", tmp_path / "text.txt")
    (tmp_path / "documents").mkdir()
    return tmp_path


def environment(folder: Path, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUARRY_")}
    return {**inherited, **{f"QUARRY_{name.upper()}": value for name, value in settings.items()}}


def quarry(folder: Path, *arguments: str, stdin: str = "", **settings: str) -> str:
    """Run a command that must succeed; give what it printed."""
    done = subprocess.run(
        [*RUN, *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(said: str) -> float:
    assert said.startswith("Perplexity "), said
    return float(said.split()[1])


def test_from_a_folder_to_an_answer(folder: Path, starter_models: Path) -> None:
    assert "Wrote tiny-f16.gguf" in quarry(folder, "convert", "tiny", "tiny-f16.gguf", "--type", "F16")
    measure = ("text.txt", "--context", "128", "--chunks", "8")
    said = quarry(folder, "imatrix", "tiny-f16.gguf", "text.txt", "i.gguf", "--context", "128")
    assert "Wrote i.gguf" in said
    exact = measured(quarry(folder, "perplexity", "tiny-f16.gguf", *measure))
    for kind, options in (("q5_k_m", ["--imatrix", "i.gguf"]), ("q4_0", [])):
        said = quarry(folder, "quantize", "tiny-f16.gguf", f"tiny-{kind}.gguf", kind, *options)
        assert f"Wrote tiny-{kind}.gguf" in said
        if kind == "q5_k_m":  # rows of a tiny model are no whole blocks of 256
            assert "of the matrices are Q5_1, not Q5_K" in said
        found = measured(quarry(folder, "perplexity", f"tiny-{kind}.gguf", *measure))
        assert found == pytest.approx(exact, rel=0.1)
    settings = {
        "chat_model": "tiny-q4_0.gguf",
        "models_dir": str(starter_models),
        "port": str(free_port()),
    }
    answer = quarry(folder, "chat", "--no-documents", stdin="Hello?\n", **settings)
    assert len(answer.strip()) > len("Ask. /help lists the commands.")
    with (
        running([*RUN, "serve"], folder, environment(folder, **settings)),
        openai.OpenAI(base_url=f"http://127.0.0.1:{settings['port']}/v1", api_key="any") as client,
    ):
        assert "tiny-q4-0" in [model.id for model in client.models.list()]
        reply = client.chat.completions.create(
            model="tiny-q4-0", messages=[{"role": "user", "content": "Hello?"}], max_tokens=8
        )
        assert reply.usage is not None
        assert 1 <= reply.usage.completion_tokens <= 8


def test_what_goes_wrong_on_the_way_is_one_line(folder: Path) -> None:
    quarry(folder, "convert", "tiny", "tiny-f16.gguf", "--type", "F16")
    (folder / "gb.txt").write_bytes("困惑度".encode("gb18030"))
    for arguments, expected in (
        (["quantize", "tiny-f16.gguf", "out.gguf", "q9"], "those that can are f32"),
        (["quantize", "none.gguf", "out.gguf", "q4_0"], "none.gguf: No such file"),
        (["quantize", "text.txt", "out.gguf", "q4_0"], "is not a GGUF file"),
        (["quantize", "tiny-f16.gguf", "nowhere/out.gguf", "q4_0"], "nowhere"),
        (["quantize", "tiny-f16.gguf", "out.gguf", "q4_0", "--imatrix", "text.txt"], "no importance matrix"),
        (["perplexity", "tiny-f16.gguf", "gb.txt"], "gb.txt is not UTF-8"),
        (["perplexity", "tiny-f16.gguf", "text.txt", "--context", "4096"], "tokens"),
    ):
        done = subprocess.run(
            [*RUN, *arguments],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
