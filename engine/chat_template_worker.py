"""The process in which chat templates run; started by chat_template.py, imports nothing of this package.

A template comes from a model file and is not trusted. Sandboxed Jinja keeps it from Python's insides; the
kernel keeps it from time and memory: a timer that ends the process after so much processor time, even inside
one long operation, and limits on memory, files and processes. Reads JSON lines, answers with JSON lines.
"""

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

MEMORY_LIMIT = 768 << 20
OUTPUT_LIMIT = 1 << 20
COMPILE_SECONDS = 2.0
RENDER_SECONDS = 0.2


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what the assistant wrote, for training; here it only lets the text through."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the block's own nodes."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def limit_process() -> None:
    """Give up what a template never needs."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """End this process if the block uses more: SIGPROF, left at its default action, kills."""
    try:
        from signal import ITIMER_PROF, setitimer
    except ImportError:  # no such timer on this system; the parent's clock remains
        yield
        return
    setitimer(ITIMER_PROF, seconds)
    try:
        yield
    finally:
        setitimer(ITIMER_PROF, 0)


def make_environment() -> jinja2.Environment:
    """Make the environment that transformers gives to chat templates."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals.pop("lipsum", None)
    return environment


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as it is; Jinja's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str) -> None:
    """Let a template refuse a conversation."""
    raise jinja2.TemplateError(str(message))


def strftime_now(form: str) -> str:
    """Format the local time."""
    return datetime.datetime.now().astimezone().strftime(form)


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """Render, stopping as soon as the text is too long."""
    pieces = []
    n_bytes = 0
    for piece in template.generate(variables):
        n_bytes += len(piece.encode("utf-8", "surrogatepass"))
        if n_bytes > OUTPUT_LIMIT:
            raise jinja2.TemplateError(f"the text is longer than {OUTPUT_LIMIT} bytes")
        pieces.append(piece)
    return "".join(pieces)


def answer(seconds: float, work: Callable[[], str]) -> str:
    """Run `work` within its time and return the line to send."""
    try:
        with processor_time(seconds):
            return json.dumps({"text": work()})
    except MemoryError:
        return json.dumps({"error": f"it needs more than {MEMORY_LIMIT >> 20} MiB of memory"})
    except Exception as e:  # noqa: BLE001 - a template can raise anything
        return json.dumps({"error": f"{type(e).__name__}: {e}"[:1000]})


def main() -> None:
    """Compile the template of the first line, then render each further line."""
    limit_process()
    environment = make_environment()
    template = environment.from_string("")

    def compile_source(source: str) -> str:
        nonlocal template
        template = environment.from_string(source)
        return ""

    source = json.loads(sys.stdin.readline())
    print(answer(COMPILE_SECONDS, lambda: compile_source(source)), flush=True)
    for line in sys.stdin:
        variables = json.loads(line)
        print(answer(RENDER_SECONDS, lambda v=variables: render(template, v)), flush=True)  # type: ignore[misc]  # defaults bind v now


if __name__ == "__main__":
    main()
