"""Tell what a model thinks from what it says: text in <think> tags at the start of an answer."""

from typing import Literal

Kind = Literal["thought", "answer"]
_OPEN, _CLOSE = "<think>", "</think>"


class ThoughtFilter:
    """Split an answer while it streams; what may still become a tag is held back until it is decided."""

    def __init__(self, *, is_open: bool) -> None:
        """Begin an answer; `is_open`: the prompt has opened the tag already."""
        self._state: Literal["start", "thought", "after", "answer"] = "thought" if is_open else "start"
        self._held = ""
        self._has_thought = False

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """Take the next piece; give what is certain, in order."""
        self._held += text
        parts: list[tuple[Kind, str]] = []
        while self._held and (part := self._next()) is not None:
            if part[1]:
                parts.append(part)
        return parts

    def flush(self) -> list[tuple[Kind, str]]:
        """Give what was held back: the answer is at its end."""
        kind: Kind = "thought" if self._state == "thought" else "answer"
        rest, self._held = self._held, ""
        return [(kind, rest)] if rest and not (self._state == "after" and rest.isspace()) else []

    def _next(self) -> tuple[Kind, str] | None:
        """Take one part off what is held; None where more must come first."""
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(_OPEN):
                self._state, self._held = "thought", begun.removeprefix(_OPEN)
                return ("thought", "")
            if _OPEN.startswith(begun):
                return None
            self._state = "answer"
        if self._state == "thought":
            if not self._has_thought:
                self._held = self._held.lstrip("\n")
                self._has_thought = bool(self._held)
            thought, closed, rest = self._held.partition(_CLOSE)
            if closed:
                self._state, self._held = "after", rest
                return ("thought", thought.rstrip("\n"))
            # Blank lines before the closing tag belong to neither.
            keep = _undecided(thought)
            certain, self._held = thought[: len(thought) - keep], thought[len(thought) - keep :]
            return ("thought", certain) if certain else None
        if self._state == "after":
            self._held = self._held.lstrip()
            if not self._held:
                return None
            self._state = "answer"
        text, self._held = self._held, ""
        return ("answer", text)


def _undecided(text: str) -> int:
    """Count the characters at the end that may be the beginning of the closing tag, and line ends before."""
    n = next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
    before = text[: len(text) - n]
    return n + len(before) - len(before.rstrip("\n"))
