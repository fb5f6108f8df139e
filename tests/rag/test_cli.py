"""The command line: what it says when something is wrong, and what it does with the starter models."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from tests.running import free_port, running

RUN = [sys.executable, "-c", "from rag.cli import main; main()"]


def quarry(
    *arguments: str, folder: Path, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with no settings but these."""
    return subprocess.run(
        [*RUN, *arguments],
        cwd=folder,
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUARRY_")}
    return {**inherited, **{f"QUARRY_{name.upper()}": value for name, value in settings.items()}}


@pytest.mark.parametrize(
    ("arguments", "settings", "expected"),
    [
        pytest.param(["up"], {"port": "abc"}, "QUARRY_PORT=abc", id="setting-not-a-number"),
        pytest.param(["serve"], {"host": "0.0.0.0"}, "QUARRY_API_KEYS", id="open-address"),  # noqa: S104 (refused)
        pytest.param(["serve"], {"chat_model": "nowhere.gguf"}, "nowhere.gguf", id="model-file-missing"),
        pytest.param(["serve"], {}, "quarry models pull", id="starter-models-not-fetched"),
        pytest.param(["ask", "Why?"], {}, "quarry models pull", id="ask-without-models"),
        pytest.param(["status"], {}, "quarry models pull", id="status-without-models"),
        pytest.param(["convert", "nowhere", "out.gguf"], {}, "nowhere", id="no-folder-to-convert"),
        pytest.param(
            ["quantize", "no.gguf", "q.gguf", "q8_0"], {}, "no.gguf: No such", id="no-file-to-quantize"
        ),
        pytest.param(["models", "show", "nothing"], {}, "nothing", id="unknown-model"),
        pytest.param(["ingest", "/nowhere"], {}, "/nowhere", id="no-such-path"),
        pytest.param(["ingest", "/usr"], {}, "outside the documents folder", id="path-outside"),
    ],
)
def test_errors_are_one_line_with_the_way_out(
    arguments: list[str], settings: dict[str, str], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "documents").mkdir()

    done = quarry(*arguments, folder=tmp_path, **{"port": str(free_port()), **settings})

    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = quarry("up", "--debug", folder=tmp_path, port="abc")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_port_in_use_names_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = quarry("serve", folder=tmp_path, port=str(port))

    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "QUARRY_PORT=" in done.stderr


def test_file_that_is_no_model_names_itself(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("this is not a model")

    done = quarry("serve", folder=tmp_path, chat_model="text.gguf", embedding_model="text.gguf", port="0")

    assert done.returncode == 1
    assert "text.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_architecture_names_itself_and_those_that_work(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "oddmodel")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    done = quarry("serve", folder=tmp_path, chat_model="odd.gguf", embedding_model="odd.gguf", port="0")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "odd.gguf: architecture 'oddmodel' is not supported" in line
    assert "llama" in line


@pytest.fixture
def library_folder(tmp_path: Path) -> Path:
    """A folder with two documents, one of them unreadable."""
    documents = tmp_path / "documents" / "garden"
    documents.mkdir(parents=True)
    (documents / "bees.md").write_text(
        "# Bees\n\nThe hive by the pond was moved to the orchard in March.\n", "utf-8"
    )
    (documents / "broken.docx").write_bytes(b"PK\x03\x04 cut off")
    return tmp_path


def test_ingest_search_ask_and_status_without_a_service(library_folder: Path, starter_models: Path) -> None:
    settings = {"models_dir": str(starter_models)}

    read = quarry("ingest", folder=library_folder, **settings)
    assert read.returncode == 0, read.stderr
    assert "broken.docx" in read.stdout

    found = quarry("search", "Where is the hive?", folder=library_folder, **settings)
    assert "garden/bees.md" in found.stdout, found.stderr

    answered = quarry("ask", "Where was the hive moved to?", folder=library_folder, **settings)
    assert answered.returncode == 0, answered.stderr
    assert "[1] garden/bees.md" in answered.stdout

    shown = quarry("status", folder=library_folder, **settings)
    assert "garden" in shown.stdout, shown.stderr
    assert "broken.docx" in shown.stdout


def test_compact_takes_deleted_text_off_the_disk(library_folder: Path, starter_models: Path) -> None:
    settings = {"models_dir": str(starter_models)}
    assert quarry("ingest", folder=library_folder, **settings).returncode == 0
    (library_folder / "documents" / "garden" / "bees.md").unlink()
    assert "1 removed" in quarry("ingest", folder=library_folder, **settings).stdout

    done = quarry("compact", folder=library_folder, **settings)

    assert done.returncode == 0, done.stderr
    kept = [path for path in (library_folder / "data").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"orchard" in path.read_bytes()]


def test_chat_keeps_the_conversation(library_folder: Path, starter_models: Path) -> None:
    lines = "Where was the hive moved to?\n/documents\nSay hello.\n/nonsense\n/clear\n"

    done = quarry("chat", folder=library_folder, stdin=lines, models_dir=str(starter_models))

    assert done.returncode == 0, done.stderr
    assert "Answering from the model alone." in done.stdout
    assert "/nonsense: unknown" in done.stdout
    assert "Forgotten." in done.stdout


@pytest.fixture
def service(library_folder: Path, starter_models: Path) -> Iterator[dict[str, str]]:
    """`quarry up` on the folder; yields its settings once the first pass is over."""
    settings = {"models_dir": str(starter_models), "port": str(free_port())}
    with running([*RUN, "up"], library_folder, environment(**settings)):
        yield settings


def test_commands_use_the_running_service(library_folder: Path, service: dict[str, str]) -> None:
    (library_folder / "documents" / "roof.txt").write_text(
        "The roof was mended with slate from Wales.", "utf-8"
    )

    read = quarry("ingest", folder=library_folder, **service)
    assert read.returncode == 0, read.stderr

    found = quarry("search", "What was the roof mended with?", folder=library_folder, **service)
    assert "roof.txt" in found.stdout, found.stderr

    answered = quarry("ask", "What was the roof mended with?", folder=library_folder, **service)
    assert "roof.txt" in answered.stdout, answered.stderr
    assert "roof.txt" in quarry("status", "--documents", folder=library_folder, **service).stdout
    assert "slate from Wales" in quarry("show", "roof.txt", folder=library_folder, **service).stdout
    assert "Reading 1 again" in quarry("retry", folder=library_folder, **service).stdout
    assert "are whole" in quarry("verify", folder=library_folder, **service).stdout
    assert "built anew" in quarry("reindex", folder=library_folder, **service).stdout
    assert "Nothing that was deleted" in quarry("compact", folder=library_folder, **service).stdout
    assert "Wrote saved.backup" in quarry("backup", "saved.backup", folder=library_folder, **service).stdout
    (library_folder / "questions.jsonl").write_text(
        '{"question": "What of the roof?", "gold": ["roof.txt"]}\n'
    )
    evaluated = quarry("eval", "questions.jsonl", folder=library_folder, **service)
    assert evaluated.returncode == 0, evaluated.stderr


def test_second_process_on_a_data_folder_ends_and_writes_nothing(
    library_folder: Path, service: dict[str, str]
) -> None:
    data = library_folder / "data"
    assert quarry("backup", "saved.backup", folder=library_folder, **service).returncode == 0
    another = {**service, "port": str(free_port())}
    told = quarry("serve", folder=library_folder, **another)
    assert told.returncode == 1
    assert f"http://127.0.0.1:{service['port']}" in told.stderr

    owner = int((data / "lock").read_text())
    os.kill(owner, signal.SIGSTOP)  # what is written now, others write
    try:
        before = _contents(data)
        second = quarry("serve", folder=library_folder, **another)
        restored = quarry("restore", "saved.backup", folder=library_folder, **service)
        after = _contents(data)
    finally:
        os.kill(owner, signal.SIGCONT)
    assert second.returncode == restored.returncode == 1
    for done in (second, restored):
        assert f"in use by process {owner}" in done.stderr
    assert after == before


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_upkeep_of_the_library(library_folder: Path, starter_models: Path) -> None:
    settings = {"models_dir": str(starter_models)}
    assert quarry("ingest", folder=library_folder, **settings).returncode == 0

    shown = quarry("show", "garden/bees.md", folder=library_folder, **settings)
    assert "The hive by the pond was moved" in shown.stdout, shown.stderr
    missing = quarry("show", "nothing.md", folder=library_folder, **settings)
    assert missing.returncode == 1
    assert missing.stderr.startswith("quarry: there is no document nothing.md")

    again = quarry("retry", "documents/garden/broken.docx", folder=library_folder, **settings)
    assert "Reading 1 again" in again.stdout, again.stderr

    saved = quarry("backup", "saved.backup", folder=library_folder, **settings)
    assert "Wrote saved.backup" in saved.stdout, saved.stderr
    restored = quarry("restore", "saved.backup", folder=library_folder, **settings)
    assert restored.returncode == 0, restored.stderr
    assert "indexes are built anew" in quarry("reindex", folder=library_folder, **settings).stdout
    whole = quarry("verify", folder=library_folder, **settings)
    assert "are whole" in whole.stdout, whole.stderr
    assert quarry("restore", "documents/garden/bees.md", folder=library_folder, **settings).returncode == 1


def test_eval_counts_what_is_found_and_answered(library_folder: Path, starter_models: Path) -> None:
    settings = {"models_dir": str(starter_models)}
    (library_folder / "questions.jsonl").write_text(
        '{"question": "Where was the hive moved to?", "gold": ["bees.md"], "answer": ["orchard"]}\n'
        '{"question": "When?", "history": ["Where was the hive moved to?"], "gold": ["bees.md"]}\n'
        '{"question": "Who won the football cup in Brazil?", "gold": []}\n'
    )
    assert quarry("ingest", folder=library_folder, **settings).returncode == 0

    done = quarry(
        "eval", "questions.jsonl", "--answers", "--out", "run.json", folder=library_folder, **settings
    )

    assert done.returncode == 0, done.stderr
    outcomes = json.loads((library_folder / "run.json").read_text("utf-8"))["outcomes"]
    assert [(o["rank"], o["is_refused"], o["answered"]) for o in outcomes] == [
        (1, False, True), (1, False, None), (0, True, None),
    ]  # fmt: skip
    again = quarry("eval", "questions.jsonl", "--against", "run.json", folder=library_folder, **settings)
    assert again.returncode == 1
    assert "choose another --label" in again.stderr
