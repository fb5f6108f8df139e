"""Traditional Chinese characters to simplified ones, by the table that is shipped beside."""

from __future__ import annotations

import functools
from importlib.resources import files


@functools.cache
def simplified() -> dict[int, int]:
    """Return the table for `str.translate`.

    Source: OpenCC's TSCharacters (Apache-2.0), written by ingest/data/simplified.py; of several simplified
    characters the first, most common one.
    """
    traditional, plain = files("ingest").joinpath("data/simplified.txt").read_text("utf-8").splitlines()[-2:]
    return {ord(a): ord(b) for a, b in zip(traditional, plain, strict=True)}
