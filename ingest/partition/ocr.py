"""Pictures of text to lines of it, by RapidOCR, where that is installed; its models come in its package."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.errors import PartitionError, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

HOW_TO_INSTALL = "OCR, which is not installed: pip install rapidocr onnxruntime, then quarry retry"
_NEEDED = ("rapidocr", "onnxruntime")
# Below it, what is read is as likely a stain as a character.
_LEAST_SCORE = 0.5
# Of two boxes' heights: so near are their middles when they stand on one line.
_SAME_LINE = 0.5
# Heights of boxes vary with their letters; only what is clearly taller is set in a larger type.
_LARGER = 1.4


@dataclass(frozen=True, slots=True)
class OcrLine:
    """A line of text and its height in pixels."""

    text: str
    height: float


def engine_name() -> str | None:
    """Return the name and version of what reads pictures; None where nothing is installed."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return None
    return f"RapidOCR {importlib.metadata.version('rapidocr')}"


def read_picture(pixels: NDArray[np.uint8]) -> list[OcrLine]:
    """Read the lines of a picture, [height, width, 3] in blue, green, red, from top to bottom.

    Raises UnsupportedFormat where no OCR is installed.
    """
    if engine_name() is None:
        raise UnsupportedFormat(f"a picture: reading its text needs {HOW_TO_INSTALL}")
    found = _engine()(pixels)
    if found.boxes is None or found.txts is None:
        return []
    boxes = [
        (float(box[:, 1].min()), float(box[:, 1].max()), float(box[:, 0].min()), " ".join(text.split()))
        for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
        if score >= _LEAST_SCORE and text.strip()
    ]
    return _lines(boxes)


def _lines(boxes: Sequence[tuple[float, float, float, str]]) -> list[OcrLine]:
    """Join boxes (top, bottom, left, text) that stand side by side."""
    rows: list[list[tuple[float, float, float, str]]] = []
    for box in sorted(boxes, key=lambda box: (box[0] + box[1]) / 2):
        if rows:
            last = rows[-1][-1]
            height = min(last[1] - last[0], box[1] - box[0])
            if abs((last[0] + last[1]) - (box[0] + box[1])) / 2 < _SAME_LINE * height:
                rows[-1].append(box)
                continue
        rows.append([box])
    heights = sorted(box[1] - box[0] for box in boxes)
    usual = heights[len(heights) // 2] if heights else 0.0
    lines = []
    for row in rows:
        text = " ".join(box[3] for box in sorted(row, key=lambda box: box[2]))
        height = max(box[1] - box[0] for box in row)
        lines.append(OcrLine(text, height if height > _LARGER * usual else usual))
    return lines


@functools.cache
def _engine() -> Any:
    """Load the models once a process."""
    from rapidocr import RapidOCR  # type: ignore[import-not-found, unused-ignore] # an extra

    try:
        return RapidOCR(
            params={
                "Global.log_level": "critical",
                # Several readers share the cores already.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
    except Exception as error:
        raise PartitionError(f"OCR does not start: {type(error).__name__}: {error}") from error
