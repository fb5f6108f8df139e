"""Files that hold several chat templates: conversations with tools have one of their own."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.convert import convert
from engine.engine import Engine
from tests.engine.gguf_metadata import read_metadata

DATA = Path(__file__).parents[1] / "data"
FAMILIES = json.loads((DATA / "chat_templates.json").read_text(encoding="utf-8"))
WITH_TOOLS = FAMILIES["templates"]["hermes-2-pro for tools"]["template"]
PLAIN = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}{% endfor %}"
HELLO = [{"role": "user", "content": "Hello"}]
RULES = [{"role": "system", "content": "Be brief."}, *HELLO]
TOOLS = FAMILIES["cases"]["tools"]["tools"]


def in_config(folder: Path) -> None:
    """Name them in tokenizer_config.json, as Command R and Hermes 2 Pro do."""
    named = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": WITH_TOOLS}]
    put_in_config(folder, named)


def in_files(folder: Path) -> None:
    """Put them into files of their own, as newer folders do; what the configuration says is older."""
    put_in_config(folder, "{{ raise_exception('old') }}")
    (folder / "chat_template.jinja").write_text(PLAIN, encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(WITH_TOOLS, encoding="utf-8")


def put_in_config(folder: Path, template: object) -> None:
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template}), encoding="utf-8")


@pytest.mark.parametrize("put", [in_config, in_files], ids=["tokenizer_config.json", "files"])
def test_tools_take_their_own_template(put: Callable[[Path], None], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DATA / "tiny" / "llama-tied", tmp_path / "folder"))
    put(folder)
    model = tmp_path / "model.gguf"
    convert(folder, model)
    metadata = read_metadata(model)
    assert metadata["tokenizer.chat_template"] == PLAIN
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
    engine = Engine.open(chat_model=model, embedding_model=None, threads=1, cache_tokens=512)
    with closing(engine):
        chat = engine.chat
        assert chat is not None
        assert chat.knows_tools
        assert chat.render(RULES) == "[system] Be brief.[user] Hello"
        told = chat.render(RULES, tools=TOOLS)
    assert "<tools> " in told
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>" in told
