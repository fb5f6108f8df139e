"""The command `quarry`: results on stdout, one clear line on stderr for every error, never a traceback."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.model_commands import register

if TYPE_CHECKING:
    from rag.settings import Settings

_STARTED = time.monotonic()

app = typer.Typer(
    help="Ask your documents questions, on your own machine.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="List, fetch and show models.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")
register(app)

ModelOption = Annotated[str, typer.Option("--model", "-m", help="quarry, or quarry-COLLECTION.")]


class TensorType(StrEnum):
    """What `convert` can write."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    Q8_0 = "Q8_0"


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="quarry")
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        from rag.terminal import print_error

        print_error(explain(error))
        sys.exit(1)


def explain(error: Exception) -> str:
    """Turn an error into the line that the user reads."""
    from engine.errors import EngineError
    from ingest.errors import IngestError
    from rag.errors import RagError

    if isinstance(error, EngineError | IngestError | RagError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:  # the native reader's, which name the file themselves
        return error.strerror
    return f"{type(error).__name__}: {error} (not foreseen; --debug shows where)"


@app.command()
def up() -> None:
    """Fetch missing models, read the documents, serve, and keep watching the folder."""
    from rag.stored_models import fetch_missing
    from rag.terminal import console
    from rag.up import serve

    settings, out = _settings(serving=True), console()
    settings.documents_dir.mkdir(parents=True, exist_ok=True)
    serve(settings, out, find_models=lambda: fetch_missing(settings, out), started=_STARTED)


@app.command("serve")
def serve_command() -> None:
    """Serve and keep watching the folder; fetch nothing."""
    from rag.stored_models import find
    from rag.terminal import console
    from rag.up import serve

    settings = _settings(serving=True)
    serve(settings, console(), find_models=lambda: find(settings), started=_STARTED)


@app.command()
def ingest(
    path: Annotated[Path | None, typer.Argument(help="Report only what lies below PATH.")] = None,
) -> None:
    """Bring the library up to the documents folder, once."""
    from rag.client import connect
    from rag.terminal import console, show_reading, show_report

    settings, out = _settings(), console()
    below = _inside(path, settings.documents_dir) if path is not None else None
    with connect(settings) as client:
        report = show_reading(client.reconcile())
        show_report(out, report, below=below)


@app.command()
def search(
    query: str,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100, help="At most so many passages.")
    ] = 6,
    model: ModelOption = "quarry",
) -> None:
    """Find passages."""
    from rag.client import connect
    from rag.terminal import console, show_passages

    with connect(_settings()) as client:
        show_passages(console(), client.search(query, limit=limit, model=model))


@app.command()
def ask(question: str, model: ModelOption = "quarry") -> None:
    """Answer one question from the documents, then list the sources."""
    from rag.client import connect
    from rag.terminal import console, show_answer

    with connect(_settings()) as client:
        show_answer(console(), client.ask([{"role": "user", "content": question}], model=model))


@app.command()
def chat(
    documents: Annotated[
        bool, typer.Option(help="Answer from the documents, or from the model alone.")
    ] = True,
    model: ModelOption = "quarry",
) -> None:
    """Talk: Ctrl-C stops an answer, Ctrl-D leaves, /help lists the rest."""
    from rag.client import connect
    from rag.repl import converse
    from rag.terminal import console

    with connect(_settings()) as client:
        converse(client, console(), model=model, documents=documents)


@app.command()
def status(
    documents: Annotated[
        bool, typer.Option("--documents", "-d", help="Also list every document: state, passages, time.")
    ] = False,
) -> None:
    """Show models, collections, how far reading is, and files that could not be read."""
    from rag.client import connect
    from rag.terminal import console, show_status

    with connect(_settings()) as client:
        show_status(console(), client.status(), documents=documents)


@app.command()
def compact() -> None:
    """Take deleted text off the disk now; the running service does it by itself when it is idle."""
    from rag.client import connect
    from rag.terminal import console

    settings = _settings()
    with connect(settings) as client:
        client.compact()
    console().print(f"Nothing that was deleted is left in {settings.data_dir}")


@app.command()
def show(file: Annotated[str, typer.Argument(help="A file in the documents folder.")]) -> None:
    """Show what is stored of a file: its state and its passages."""
    from rag.client import connect
    from rag.terminal import console, show_document

    settings = _settings()
    with connect(settings) as client:
        show_document(console(), client.document(_document(file, settings.documents_dir)))


@app.command()
def retry(
    file: Annotated[str | None, typer.Argument(help="One file; none: all that could not be read.")] = None,
) -> None:
    """Read again what could not be read."""
    from rag.client import connect
    from rag.terminal import console, show_reading, show_report

    settings, out = _settings(), console()
    path = None if file is None else _document(file, settings.documents_dir)
    with connect(settings) as client:
        paths = client.retry(path)
        out.print(f"Reading {len(paths)} again" if paths else "There is nothing to read again.")
        if paths:
            show_report(out, show_reading(client.reconcile()))


@app.command()
def verify() -> None:
    """Check the record and the search indexes; exit code 1 when something is wrong."""
    from rag.client import connect
    from rag.terminal import console

    with connect(_settings()) as client:
        faults = client.verify()
    for fault in faults:
        console().print(fault)
    if faults:
        raise typer.Exit(1)
    console().print("The record and the indexes are whole.")


@app.command()
def reindex() -> None:
    """Build the search indexes anew; nothing is embedded again."""
    from rag.client import connect
    from rag.terminal import console

    with connect(_settings()) as client:
        client.reindex()
    console().print("The indexes are built anew.")


@app.command()
def backup(out: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the library into one file, also while the service reads documents."""
    from rag.client import connect
    from rag.terminal import console

    with connect(_settings()) as client:
        client.backup(out)
    console().print(
        f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB). The documents themselves are not in it."
    )


@app.command()
def restore(source: Annotated[Path, typer.Argument(help="A file that `quarry backup` wrote.")]) -> None:
    """Put a backup in the place of the library; the service must not run."""
    from ingest.backup import restore as restore_library
    from rag.terminal import console

    settings = _settings()
    restore_library(source, settings.data_dir)
    console().print(f"Restored {settings.data_dir} from {source}; the indexes are built at the next start.")


@app.command("eval")
def evaluate(
    questions: Annotated[Path, typer.Argument(help="One JSON object a line; see docs/evaluation.md.")],
    answers: Annotated[bool, typer.Option("--answers", help="Let the model answer, too.")] = False,
    sides: Annotated[bool, typer.Option("--sides", help="Also each of the two searches alone.")] = False,
    against: Annotated[list[Path] | None, typer.Option(help="A kept run to show beside.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep this run in a file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw recall@5 into an SVG file.")] = None,
    label: Annotated[str, typer.Option(help="What to call this run.")] = "now",
    model: ModelOption = "quarry",
) -> None:
    """Measure what is found, and answered, of your own questions."""
    from rag import evaluation
    from rag.evaluate import run
    from rag.evaluation_report import plot as draw
    from rag.terminal import console

    asked = evaluation.read_questions(questions)
    kept = dict(evaluation.load(path) for path in against or ())
    runs = run(
        _settings(), console(), asked, model=model, answers=answers, sides=sides, label=label, kept=kept
    )
    if out is not None:
        evaluation.save(out, label, runs[label])
    if plot is not None:
        plot.write_text(draw(runs), "utf-8")


@app.command()
def convert(
    folder: Annotated[
        Path, typer.Argument(help="A folder with config.json, a tokenizer and safetensors or PyTorch files.")
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    tensor_type: Annotated[
        TensorType, typer.Option("--type", case_sensitive=False, help="The type of the weights.")
    ] = TensorType.F16,
) -> None:
    """Convert a Hugging Face folder to GGUF."""
    from engine.convert import convert as convert_model
    from rag.terminal import console, count_progress

    terminal = console()
    with count_progress() as bars:
        task = bars.add_task("Converting", total=None)
        convert_model(
            folder,
            out,
            tensor_type=tensor_type.value,
            progress=lambda done, total, _: bars.update(task, completed=done, total=total),
        )
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    terminal.print(f"Wrote {out} ({size}). Use it as QUARRY_CHAT_MODEL or QUARRY_EMBEDDING_MODEL.")


@models_app.command("list")
def list_models() -> None:
    """List the presets and the models on disk."""
    from rag.stored_models import describe_all
    from rag.terminal import console, show_models

    settings = _settings()
    show_models(console(), describe_all(settings))


@models_app.command("pull")
def pull_models_command(
    models: Annotated[
        list[str] | None, typer.Argument(help="Presets or sources; none: those in use.")
    ] = None,
) -> None:
    """Fetch models. This talks to the network."""
    from rag.stored_models import in_use, pull
    from rag.terminal import console

    settings, out = _settings(), console()
    for spec in models or in_use(settings):
        out.print(f"{spec}: {pull(settings, spec, out)}")


@models_app.command("show")
def show_model_command(model: str) -> None:
    """Show what a model file says of itself."""
    from rag.stored_models import describe_file
    from rag.terminal import console, show_facts

    show_facts(console(), describe_file(_settings(), model))


def _settings(*, serving: bool = False) -> "Settings":
    """Read the settings once, and send log lines to stderr: all of them while serving, else warnings only."""
    from rag.log import configure_logging
    from rag.settings import load_settings

    settings = load_settings()
    configure_logging(settings.log_level if serving else "warning", as_json=serving and settings.log_json)
    return settings


def _document(file: str, folder: Path) -> str:
    """Name a document as the library does, from a path that need not exist any more."""
    path = Path(file)
    if path.is_absolute() or path.exists():
        return _inside(path, folder)
    return path.as_posix()


def _inside(path: Path, folder: Path) -> str:
    """Give `path` relative to the documents folder. Raises: OutsideDocuments, naming how to add it."""
    from rag.errors import OutsideDocuments

    if not path.exists():
        raise OutsideDocuments(f"{path} does not exist")
    resolved, root = path.resolve(), folder.resolve()
    if not resolved.is_relative_to(root):
        raise OutsideDocuments(
            f"{path} lies outside the documents folder {folder}. Copy it in (cp -r {path} {folder}/), "
            f"or read that folder instead: QUARRY_DOCUMENTS_DIR={path}"
        )
    return resolved.relative_to(root).as_posix()
