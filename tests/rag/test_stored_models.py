"""The list of models: presets, what was fetched, and files that somebody put beside them."""

import json
from pathlib import Path

from rag.settings import Settings
from rag.stored_models import describe_all


def test_files_that_were_never_fetched_are_listed_by_the_name_that_finds_them(tmp_path: Path) -> None:
    for name in ("mine/my-model.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "half.gguf.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 2_000_000)
    part = {"name": "m-00002-of-00002.gguf", "size": 2_000_000, "sha256": ""}
    model = {"name": "m", "path": "m-00001-of-00002.gguf", "size": 2_000_000, "sha256": "", "parts": [part]}
    entry = model | {"source": "hf:me/m/m-00001-of-00002.gguf", "architecture": "llama"}
    (tmp_path / "manifest.json").write_text(json.dumps({"models": [entry]}))
    settings = Settings(models_dir=tmp_path, chat_model="mine/my-model.gguf")
    rows = {row["model"]: row for row in describe_all(settings)}
    assert rows["starter-chat"]["on disk"] == "-"
    assert rows["hf:me/m/m-00001-of-00002.gguf"]["on disk"] == "4 MB"
    assert rows["mine/my-model.gguf"] == {
        "model": "mine/my-model.gguf",
        "on disk": "2 MB",
        "used": "yes",
        "what it is": "a file of yours",
    }
    assert not any(name.endswith((".part", "00002-of-00002.gguf")) and "/" not in name for name in rows)
