"""What the commands show: tables, progress bars, answers, and what to try next."""

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from rag.client import AnswerPart

_EXCERPT = 300


def console() -> Console:
    """Make the console for results: no colours guessed from their text, no markup read from documents."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Say on stderr what went wrong and the way out."""
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        Text.assemble(("quarry: ", "bold red"), message)
    )


@contextmanager
def download_progress() -> Iterator[Progress]:
    """Show bytes, speed and time left, on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _progress(columns) as progress:
        yield progress


@contextmanager
def count_progress() -> Iterator[Progress]:
    """Show how many of how many are done, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
    with _progress(columns) as progress:
        yield progress


@contextmanager
def reading_progress() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how far a pass over the documents is, on a terminal: documents, bytes, rate, time left."""
    columns = (
        TextColumn("Reading documents"),
        BarColumn(),
        TextColumn("{task.fields[documents]}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _progress(columns) as bars:
        task = bars.add_task("", total=None, documents="")

        def show(now: Mapping[str, Any]) -> None:
            documents = f"{now['n_done']} of {now['n_total']}"
            bars.update(task, completed=now["bytes_done"], total=now["bytes_total"], documents=documents)

        yield show


def _progress(columns: Sequence[ProgressColumn]) -> Progress:
    errors = Console(stderr=True)
    return Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)


def show_passages(out: Console, passages: Sequence[Mapping[str, Any]]) -> None:
    """List what a search found, best first."""
    if not passages:
        out.print("Nothing in the documents matches.")
    for number, passage in enumerate(passages, 1):
        out.print(Text.assemble((f"[{number}] ", "bold"), (place(passage), "bold cyan")))
        text = " ".join(str(passage["text"]).split())
        out.print(text if len(text) <= _EXCERPT else text[:_EXCERPT].rstrip() + "…")
        out.print()


def show_answer(out: Console, parts: Iterable[AnswerPart]) -> str:
    """Print an answer as it comes, then its sources; give the answer's text."""
    answer = ""
    sources: Sequence[Mapping[str, Any]] = ()
    for part in parts:
        sources = part.sources or sources
        out.print(part.text, end="")
        answer += part.text
    out.print()
    if cited := [source for source in sources if source.get("cited")] or sources:
        out.print()
        for source in cited:
            out.print(Text.assemble((f"[{source['number']}] ", "bold"), (place(source), "cyan")))
    return answer


def place(passage: Mapping[str, Any]) -> str:
    """Name where a passage stands: file, headings, page."""
    parts = [str(passage["path"])]
    if passage["heading_path"]:
        parts.append(" › ".join(passage["heading_path"]))
    if passage["page"] is not None:
        parts.append(f"p. {passage['page']}")
    return ", ".join(parts)


def show_reading(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Show how far a pass over the documents is; give its report."""
    report: Mapping[str, Any] = {}
    with reading_progress() as show:
        for event in events:
            if progress := event.get("progress"):
                show(progress)
            report = event.get("report", report)
    return report


def show_report(out: Console, report: Mapping[str, Any], *, below: str | None = None) -> None:
    """Say what a pass changed, and which files (below `below`, where it is given) it could not read."""
    kinds = ("added", "changed", "moved", "removed", "unchanged", "waiting")
    said = ", ".join(f"{report[kind]} {kind}" for kind in kinds if report[kind])
    out.print(f"Documents: {said or 'none yet'}")
    shown = [
        (path, reason)
        for path, reason in report["failed"]
        if below is None or path == below or path.startswith(f"{below}/") or below == "."
    ]
    _show_failures(out, shown)


def _show_failures(out: Console, failures: Sequence[tuple[str, str]]) -> None:
    if failures:
        out.print(Text(f"{len(failures)} could not be read:", style="bold yellow"))
    for path, reason in failures:
        out.print(f"  {path}: {reason}")


def show_status(out: Console, status: Mapping[str, Any], *, documents: bool = False) -> None:
    """Show the models, what each collection holds, how far reading is, and which files could not be read.

    documents: also every document with its state.
    """
    for role, model in status["models"].items():
        out.print(Text.assemble((f"{role + ' model':<16}", "bold"), model["name"] if model else "none"))
    if cache := status.get("cache"):
        out.print(_cache(cache))
    table = Table("collection", "documents", "passages", box=None, header_style="bold", pad_edge=False)
    for collection in status["collections"]:
        table.add_row(collection["name"], str(collection["n_documents"]), str(collection["n_chunks"]))
    out.print()
    out.print(table if status["collections"] else "No documents yet: put some into the documents folder.")
    if progress := status.get("progress"):
        out.print()
        out.print(_said(progress))
    if documents:
        out.print()
        out.print(_documents(status["documents"]))
    if status["failures"]:
        out.print()
    _show_failures(out, [(failure["path"], failure["reason"]) for failure in status["failures"]])
    for line in _index_faults(status["indexes"]):
        out.print()
        out.print(line, markup=False)
    if protections := status["protections"]:
        out.print()
        said = ", ".join(
            f"{name.replace('_', ' ')} {'on' if on else 'off'}" for name, on in protections.items()
        )
        out.print(f"Documents are read behind: {said}")
    if "ocr" in status:
        missing = "not read: install OCR with pip install rapidocr onnxruntime"
        out.print(f"Scans and pictures are {'read by ' + status['ocr'] if status['ocr'] else missing}")
    if "old_files" in status:
        reader = status["old_files"]
        how = f"read by {reader}" if reader else "not read: install LibreOffice"
        out.print(f"Files of Word 97 to 2003 and the like are {how}")


def _index_faults(indexes: Mapping[str, Any]) -> Iterator[str]:
    """Say what keeps searches from being what they should be."""
    if indexes["error"] is not None:
        yield f"Search indexes: {indexes['error']}"
    elif not indexes["ready"]:
        yield "Search indexes: being opened"
    if indexes["embedder_changed"]:
        yield "Another embedding model: passages are embedded anew; until then words alone are searched"


def _cache(cache: Mapping[str, int]) -> Text:
    n_tokens = cache["n_prompt_tokens"] + cache["n_reused_tokens"]
    share = f", {cache['n_reused_tokens'] / n_tokens:.0%} of prompt tokens reused" if n_tokens else ""
    used = f"{cache['n_used_blocks']} of {cache['n_blocks']} blocks in use, {cache['n_kept_blocks']} kept"
    return Text.assemble((f"{'cache':<16}", "bold"), used + share)


def _said(progress: Mapping[str, Any]) -> str:
    """Say in a line how far a pass is."""
    megabytes = f"{progress['bytes_done'] / 1e6:.1f} of {progress['bytes_total'] / 1e6:.1f} MB"
    left = progress["seconds_left"]
    return (
        f"Reading {progress['n_done']} of {progress['n_total']} documents, {megabytes},"
        f" {progress['bytes_per_second'] / 1e6:.2f} MB/s"
        + ("" if left is None else f", about {datetime.timedelta(seconds=round(left))} left")
    )


def _documents(documents: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("document", "state", "version", "passages", "tokens", "took", "read at (UTC)")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for document in documents:
        table.add_row(
            document["path"], document["state"], str(document["version"]), str(document["n_chunks"]),
            str(document["n_tokens"]), f"{document['seconds']:.1f} s", (document["indexed_at"] or "")[:19],
        )  # fmt: skip
    return table


def show_document(out: Console, answer: Mapping[str, Any]) -> None:
    """Print a document's facts and its passages, as they are stored."""
    document = answer["document"]
    facts = [document["collection"], document["state"], f"version {document['version']}"]
    facts += [f"{document['n_chunks']} passages", f"{document['n_tokens']} tokens"]
    facts += [f"took {document['seconds']:.1f} s"]
    out.print(Text.assemble((document["path"], "bold cyan"), f": {', '.join(facts)}"))
    if document["reason"]:
        out.print(Text(document["reason"], style="bold yellow"))
    for chunk in answer["chunks"]:
        out.print()
        said = [place(chunk), f"{chunk['n_tokens']} tokens"]
        if document["offsets_in_file"]:
            said.append(f"characters {chunk['start']} to {chunk['end']}")
        elif where := chunk.get("place"):
            said.append(f"{where['unit']}s {where['first']} to {where['last']}")
        if not chunk["indexed"]:
            said.append("not searched: other documents or every page say the same")
        out.print(Text(f"[{chunk['ordinal'] + 1}] {', '.join(said)}", style="bold"))
        out.print(chunk["text"])


def show_models(out: Console, models: Sequence[Mapping[str, str]]) -> None:
    """Show models as a table, a row each."""
    table = Table(*models[0], box=None, header_style="bold", pad_edge=False)
    for model in models:
        table.add_row(*model.values())
    out.print(table, soft_wrap=False)


def show_facts(out: Console, facts: Mapping[str, str]) -> None:
    """Show names and values, one pair a line."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        out.print(Text.assemble((name.ljust(width), "bold"), value))


def show_next_steps(out: Console, url: str, *, models: Sequence[str], needs_key: bool, starter: bool) -> None:
    """Print what to try once the service is ready."""
    question = {"model": "quarry", "messages": [{"role": "user", "content": "What does Quarry read?"}]}
    key = "YOUR-KEY" if needs_key else "any"
    header = "-H 'Authorization: Bearer YOUR-KEY' " if needs_key else ""
    port = url.rsplit(":", 1)[1]
    steps = f"""
Try next, in another terminal:

  .venv/bin/quarry ask "What does Quarry read?"

  curl {url}/v1/chat/completions {header}-H 'Content-Type: application/json' \\
    -d '{json.dumps(question)}'

ChatGPT-Next-Web (as environment of its server; no /v1 at the end):

  BASE_URL=http://host.docker.internal:{port}   (in a container; outside one: {url})
  OPENAI_API_KEY={key}
  CUSTOM_MODELS=-all,+quarry@OpenAI=My documents
  DEFAULT_MODEL=quarry

LangChain:

  from langchain_openai import ChatOpenAI
  ChatOpenAI(model="quarry", base_url="{url}/v1", api_key="{key}").invoke("What does Quarry read?")
"""
    out.print(steps.rstrip())
    if models:
        out.print(f"\nModels for one collection each: {', '.join(models)}")
    if starter:
        out.print(
            "\nThe starter models are small English demos. For Chinese:\n\n"
            "  .venv/bin/quarry models pull zh-small zh-embedding\n"
            "  QUARRY_CHAT_MODEL=zh-small QUARRY_EMBEDDING_MODEL=zh-embedding make run"
        )
    out.print("\nCtrl-C stops.")
