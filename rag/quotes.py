"""Quotations in an answer, held against the passage that is named behind them."""

import re
import unicodedata

_QUOTED = re.compile(
    r"(?:“([^“”]{1,600})”|\"([^\"]{1,600})\"|「([^「」]{1,600})」|『([^『』]{1,600})』)[.,。，]?\s*\Z"
)
# Less is a name or a term in quotation marks, which proves nothing.
_LEAST_CHARACTERS = 4
_LEAST_WORDS = 3
_HAN = re.compile(r"[\u3400-\u9fff]")
_ENDS = " .,;:!?。，；：！？…"


def quoted_before(text: str) -> str:
    """Give the quotation that a text ends with; nothing where it ends with none."""
    match = _QUOTED.search(text)
    return next(filter(None, match.groups()), "") if match else ""


def is_verbatim(quote: str, passage: str) -> bool:
    """Tell whether a quotation stands word for word in a passage, but for spaces, width and its last mark."""
    said = _plain(quote).strip(_ENDS)
    n_words = len(_HAN.findall(said)) if _HAN.search(said) else len(said.split())
    least = _LEAST_CHARACTERS if _HAN.search(said) else _LEAST_WORDS
    if n_words < least:
        return False
    found = re.compile(rf"(?<![^\W\u3400-\u9fff]){re.escape(said)}(?![^\W\u3400-\u9fff])")
    return found.search(_plain(passage)) is not None


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).replace("\\$", "$")
    return " ".join(plain.translate({0x2019: "'", 0x2018: "'"}).split())
