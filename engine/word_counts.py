"""Count the WordPiece tokens of many texts: a word has as many wherever it stands, so each is cut once."""

import re
from collections.abc import Sequence
from itertools import chain

import tokenizers

# BertNormalizer puts each ideograph apart, BertPreTokenizer each mark, and blanks end a word: what lies
# between counts alone. Other ideographs and blanks stay inside such a piece, and the model cuts them there.
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff"
_MARKS = r"!-/:-@\[-`{-~"
_PIECE = re.compile(f"[^ \t\n\r{_IDEOGRAPHS}{_MARKS}]+")
# A token each, whether the vocabulary knows it or not.
_SINGLE_RUN = re.compile(f"[{_IDEOGRAPHS}{_MARKS}]+")
# Some 20 MiB; texts of one kind share nearly all of their words.
_MAX_WORDS = 200_000
# Longer ones seldom come twice.
_MAX_WORD_LENGTH = 64


class WordCounts:
    """Remember how many tokens words have. Thread-safe: the words known are replaced, never taken out."""

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        """Count by `model`, a WordPiece model behind BertNormalizer and BertPreTokenizer."""
        self._model = model
        self._known: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, exactly as the model cuts them."""
        pieces = [_PIECE.findall(text) for text in texts]
        known = self._known
        words = set(chain.from_iterable(pieces))
        missing = list(words - known.keys())
        if len(known) + len(missing) > _MAX_WORDS:
            self._known = known = {}
            missing = list(words)
        encoded = self._model.encode_batch_fast(missing, add_special_tokens=False)
        fresh = dict(zip(missing, map(len, encoded), strict=True))
        long = {word: n for word, n in fresh.items() if len(word) > _MAX_WORD_LENGTH}
        known.update((word, n) for word, n in fresh.items() if word not in long)
        of = known.__getitem__ if not long else (known | long).__getitem__
        return [
            sum(map(of, own)) + sum(map(len, _SINGLE_RUN.findall(text)))
            for text, own in zip(texts, pieces, strict=True)
        ]
