"""Source code: kept as it is, cut between functions where a file has them."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition.decoding import decode_lines
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

SUFFIXES = (
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".java", ".kt", ".scala", ".go", ".rs",
    ".js", ".jsx", ".mjs", ".ts", ".tsx", ".vue", ".rb", ".php", ".pl", ".lua", ".r", ".swift", ".m", ".sh",
    ".bash", ".ps1", ".bat", ".sql", ".css", ".scss", ".proto", ".cmake", ".gradle", ".toml", ".yaml", ".yml",
    ".ini", ".cfg", ".conf", ".properties", ".tex",
)  # fmt: skip
# A block begins at the margin after an empty line; what only closes or goes on belongs to the one before.
_BEGINNING = re.compile(r"\n\s*\n(?=[^\s)\]}])(?!(?:else|elif|except|finally|catch|end)\b)")


def read_source(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read code; every function, class or other block at the margin is one element, with its place."""
    text = decode_lines(file.read(limits.file_bytes))
    elements: list[Element] = []
    start = 0
    for end in [*(match.end() for match in _BEGINNING.finditer(text)), len(text)]:
        block = text[start:end]
        begin = start + len(block) - len(block.lstrip("\n"))
        if code := block.strip("\n").rstrip():
            elements.append(Element("CodeSnippet", code, start=begin, end=begin + len(code)))
        start = end
    return elements
