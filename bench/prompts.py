"""Token ids to measure with: both sides read the same ones, so no tokenizer takes part."""

from __future__ import annotations

import random


def token_ids(n: int, n_vocab: int, *, seed: int = 0) -> list[int]:
    """Draw `n` token ids of a vocabulary, the same for the same seed; the first 1,000 are left out.

    The first ids are control tokens in most vocabularies.
    """
    draw = random.Random(seed)
    return [draw.randrange(min(1000, n_vocab // 2), n_vocab) for _ in range(n)]
