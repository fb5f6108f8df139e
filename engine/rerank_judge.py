"""Rerankers that are language models: Qwen3-Reranker answers yes or no, and how likely yes is counts.

Source: the model's card, for the words of the prompt and how the score is made of two logits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import UnsupportedModel
from engine.reranker import WINDOW_TOKENS, Pair, room_beside, sigmoid, windows
from engine.tokenizer import Tokenizer

BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TASK = "Given a web search query, retrieve relevant passages that answer the query"
_SLACK = 8
"""Tokens by which a part of a passage may grow when it is cut anew, put behind the question."""


class YesNoJudge:
    """A decoder that says yes or no to a pair; see `PairScorer`."""

    def __init__(self, file: _native.GgufFile, tokenizer: Tokenizer, encoder: _native.CausalEncoder) -> None:
        """Raises: UnsupportedModel where the file has no yes and no, or not the tokens of the prompt."""
        self.max_tokens = min(encoder.context_length, WINDOW_TOKENS)
        self.weight_bytes = encoder.weight_bytes
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._before = tokenizer.encode(BEFORE, add_special=False, parse_special=True)
        self._after = tokenizer.encode(AFTER, add_special=False, parse_special=True)
        if not tokenizer.is_hidden(self._before[0]):
            raise UnsupportedModel(
                "the model is no reranker that is known here: it does not know the token <|im_start|>"
            )
        yes, no = _answer_rows(file, tokenizer)
        self._direction = yes - no

    def pairs(self, query: str, passage: str) -> list[Pair]:
        whole = self._pair(query, passage)
        if len(whole.token_ids) <= self.max_tokens:
            return [whole]
        asked = len(self._tokenizer.encode(query, add_special=False))
        n_fixed = len(self._pair("", "").token_ids) + _SLACK
        room = room_beside(asked, self.max_tokens - n_fixed)
        ids = self._tokenizer.encode(passage, add_special=False)
        return [self._pair(query, self._tokenizer.decode(part)) for part in windows(ids, room)]

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        states = self._encoder.encode([pair.token_ids for pair in pairs], normalize=False)
        return sigmoid(states @ self._direction)

    def _pair(self, query: str, passage: str) -> Pair:
        text = f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {passage}"
        ids = [*self._before, *self._tokenizer.encode(text, add_special=False), *self._after]
        return Pair(np.array(ids, np.int32), len(ids))


def _answer_rows(file: _native.GgufFile, tokenizer: Tokenizer) -> tuple[NDArray[np.float32], ...]:
    """Return the rows of the output matrix for yes and no, which some files have cut out.

    Raises: UnsupportedModel.
    """
    names = {tensor.name for tensor in file.tensors()}
    if "cls.output.weight" in names:
        key = f"{file.get('general.architecture')}.classifier.output_labels"
        labels = file.get(key) if key in set(file.keys()) else ["yes", "no"]
        if labels != ["yes", "no"]:
            raise UnsupportedModel(f"the reranker answers {labels!r:.80}; ['yes', 'no'] is expected")
        return tuple(file.row("cls.output.weight", i) for i in range(2))
    matrix = "output.weight" if "output.weight" in names else "token_embd.weight"
    rows = []
    for word in ("yes", "no"):
        ids = tokenizer.encode(word, add_special=False)
        if len(ids) != 1:
            raise UnsupportedModel(f"the model is no reranker that is known here: {word!r} is no token of it")
        rows.append(file.row(matrix, ids[0]))
    return tuple(rows)
