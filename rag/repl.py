"""The conversation in the terminal."""

from collections.abc import Iterator
from contextlib import closing, suppress

from rich.console import Console

from rag.client import AnswerPart, Client
from rag.errors import ServiceFailed
from rag.terminal import print_error, show_answer

_HELP = """\
/documents   answer from the documents, or stop doing so
/clear       forget the conversation
/help        this list
Ctrl-C stops an answer. Ctrl-D leaves."""


def converse(client: Client, out: Console, *, model: str, documents: bool) -> None:
    """Read questions and stream answers until the input ends."""
    _enable_line_editing()
    chat_model = client.status()["models"]["chat"]
    if not documents and chat_model is None:
        raise ServiceFailed("no chat model is configured: set QUARRY_CHAT_MODEL, or leave out --no-documents")
    history: list[dict[str, str]] = []
    out.print("Ask. /help lists the commands.")
    while (line := _read_line(out)) is not None:
        match line.strip():
            case "":
                continue
            case "/help":
                out.print(_HELP)
            case "/clear":
                history.clear()
                out.print("Forgotten.")
            case "/documents" if chat_model is not None:
                documents = not documents
                out.print("Answering from the documents." if documents else "Answering from the model alone.")
            case command if command.startswith("/"):
                out.print(f"{command}: unknown or not possible now; /help lists the commands.")
            case question:
                history.append({"role": "user", "content": question})
                answer = _answer(client, out, history, model=model if documents else chat_model["name"])
                if answer:
                    history.append({"role": "assistant", "content": answer})
                else:
                    history.pop()


def _answer(client: Client, out: Console, history: list[dict[str, str]], *, model: str) -> str:
    """Stream one answer and give its text; Ctrl-C keeps what came so far, an error leaves nothing."""
    shown: list[AnswerPart] = []

    def kept() -> Iterator[AnswerPart]:
        for part in parts:
            shown.append(part)
            yield part

    with closing(client.ask(history, model=model)) as parts:
        try:
            return show_answer(out, kept())
        except KeyboardInterrupt:
            out.print(" (stopped)")
            return "".join(part.text for part in shown)
        except ServiceFailed as error:
            print_error(str(error))
            return ""


def _read_line(out: Console) -> str | None:
    """Give the next line, or None at the end of the input. Ctrl-C starts the line anew."""
    while True:
        try:
            return input("> ")
        except KeyboardInterrupt:
            out.print()
        except EOFError:
            out.print()
            return None


def _enable_line_editing() -> None:
    """Let input() recall earlier lines, where Python has readline."""
    with suppress(ImportError):
        import readline  # noqa: F401 (importing it is the effect)
