"""What a question is made of: its language, its content words, its sentences."""

import re
import unicodedata

import rjieba

from ingest.sentences import sentence_spans
from ingest.words import stop_words

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
_IDENTIFIER = re.compile(r"[a-z][^\W_]*[-_./]*[^\W_]*\d|\d[^\W_]*[-_./]*[a-z]|[a-z]_[a-z]")
_WORD = re.compile(r"[^\W_]+(?:[-_./:@'’][^\W_]+)*")

_STOP_WORDS = stop_words("en") | stop_words("zh")


def is_chinese(text: str) -> bool:
    """Tell whether a text reads as Chinese: Han characters, no kana, no Hangul, little English."""
    han = len(_CJK.findall(text))
    latin_words = len(re.findall(r"[A-Za-z]+", text))
    return han > 0 and not _KANA_HANGUL.search(text) and han * 2 >= latin_words


def terms(text: str) -> list[str]:
    """Give the content words in order, without repeats; Chinese by dictionary, English without its ending."""
    found: dict[str, None] = {}
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        pieces = [piece.strip() for piece in rjieba.cut(word)] if _CJK.search(word) else [word]
        for piece in pieces:
            if piece and piece not in _STOP_WORDS and _WORD.match(piece):
                found[_stem(piece)] = None
    return list(found)


def coverage(question: list[str], passage: str) -> float:
    """Give the share of the question's terms that a passage holds, long terms counting more.

    A dictionary cuts the same characters differently in two places, so Chinese terms are sought in the text.
    """
    if not question:
        return 0.0
    held = set(terms(passage))
    text = unicodedata.normalize("NFKC", passage).lower()
    weights = {term: _weight(term) for term in question}
    hit = sum(w for t, w in weights.items() if t in held or (_CJK.search(t) and t in text))
    return hit / sum(weights.values())


def share_of_identifiers(question: str) -> float:
    """Give the share of names like KX-300, TG_809 or D015 in what a question is about, by length."""
    found = terms(question)
    named = [term for term in found if _IDENTIFIER.search(term)]
    return sum(map(len, named)) / max(1, sum(map(len, found)))


def sentences(text: str) -> list[str]:
    """Cut a passage into sentences, as it was cut into chunks."""
    return [found for start, end in sentence_spans(text) if (found := text[start:end].strip())]


def _weight(term: str) -> float:
    if _CJK.search(term):
        return 2.0 * len(term)
    # An identifier or a number says more than a word.
    return min(len(term), 10) * (1.5 if any(ch.isdigit() for ch in term) else 1.0)


def _stem(word: str) -> str:
    """Take the commonest English endings off: enough to meet install, installs, installed, installing."""
    word = word.removesuffix("'s").removesuffix("’s")
    if not word.isascii() or not word.isalpha():
        return word
    for ending, least in (("ing", 6), ("ied", 5), ("ies", 5), ("ed", 5), ("es", 5), ("s", 4)):
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            word = word.removesuffix(ending)
            if ending in {"ied", "ies"}:
                return word + "y"
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 4 else word
