"""What the models are told, read from files: those shipped in rag/prompts, and a user's own in their place.

    <folder>/en/rules.txt      before a question: answer from the sources, cite them
    <folder>/en/mixed.txt      the same where an answer may go beyond the sources
    <folder>/en/general.txt    where no source was found and the answer may come from elsewhere
    <folder>/en/formed.txt     where the client wants a form of its own
    <folder>/en/question.txt   the question: holds {sources} and {question}
    <folder>/en/summary.txt    where a document is to be summarised: holds {title}
    <folder>/en/part.txt       the same for a part of one that does not fit the context: holds {title}
    <folder>/en/short.txt      before a question to one of the smallest models, which know English only

and the same but short.txt in `zh`, for questions in Chinese. A folder needs only the files that are to be
different. Braces that are no placeholder are doubled: {{ and }}.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rag.errors import SettingsError

LANGUAGES = ("en", "zh")
PLACEHOLDERS: Mapping[str, tuple[str, ...]] = {
    "rules": (),
    "mixed": (),
    "general": (),
    "formed": (),
    "question": ("sources", "question"),
    "summary": ("title",),
    "part": ("title",),
    "short": (),
}
KNOWN = tuple(
    (language, name) for language in LANGUAGES for name in PLACEHOLDERS if (language, name) != ("zh", "short")
)
"""Language and name of every prompt."""
_LONGEST = 16_384


class BadPrompt(SettingsError):
    """A file of a prompt cannot be used."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts by language and name, as they are written in their files."""

    texts: Mapping[tuple[str, str], str]

    def text(self, name: str, *, chinese: bool, **values: str) -> str:
        """Give a prompt with its placeholders filled."""
        return self.texts["zh" if chinese else "en", name].format(**values)


def load_prompts(own: Path | None = None) -> Prompts:
    """Read the shipped prompts, and those of a user's folder in their place. Raises: BadPrompt."""
    texts = {(language, name): shipped_text(language, name) for language, name in KNOWN}
    if own is None:
        return Prompts(texts)
    if not own.is_dir():
        raise BadPrompt(f"QUARRY_PROMPTS_DIR={own} is not a folder")
    for path in sorted(own.glob("*/*")):
        key = (path.parent.name, path.stem)
        if path.suffix != ".txt" or key not in texts:
            known = ", ".join(f"{language}/{name}.txt" for language, name in KNOWN)
            raise BadPrompt(f"{path} is no prompt: there may be {known}")
        texts[key] = _checked(path)
    return Prompts(texts)


def shipped_text(language: str, name: str) -> str:
    """Return a prompt as it is shipped."""
    return files("rag").joinpath(f"prompts/{language}/{name}.txt").read_text("utf-8").strip()


def _checked(path: Path) -> str:
    """Read a file and check its placeholders."""
    try:
        text = path.read_text("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadPrompt(f"{path} is not UTF-8") from error
    except OSError as error:
        raise BadPrompt(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _LONGEST:
        raise BadPrompt(f"{path} has {len(text)} characters; a prompt may have {_LONGEST}")
    wanted = PLACEHOLDERS[path.stem]
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise BadPrompt(f"{path}: {error}; braces that are no placeholder are doubled: {{{{ }}}}") from error
    may = ", ".join(f"{{{name}}}" for name in wanted) or "none"
    if unknown := sorted(found - set(wanted)):
        raise BadPrompt(f"{path}: unknown placeholder {{{unknown[0]}}}; it may hold {may}")
    if missing := [name for name in wanted if name not in found]:
        raise BadPrompt(f"{path} must hold {{{missing[0]}}}")
    return text
