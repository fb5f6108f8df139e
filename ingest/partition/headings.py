"""What counts as a heading where the format does not say: short, no sentence end, not a list."""

from __future__ import annotations

import re
import unicodedata

_SENTENCE_END = re.compile(r"[。！？；…!?;:：，,、.]['\"”’」』）)]*$")
_MAX_WIDTH = 80
_MAX_WORDS = 12


def is_heading(text: str) -> bool:
    """Tell whether a line stands as a heading; Chinese is measured by width, not by spaces."""
    if "\n" in text.strip() or not any(character.isalpha() for character in text):
        return False
    width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return (
        width <= _MAX_WIDTH and len(text.split()) <= _MAX_WORDS and _SENTENCE_END.search(text.strip()) is None
    )
