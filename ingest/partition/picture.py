"""png, jpg, tiff and the like: text by OCR."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError, UnsupportedFormat
from ingest.partition import ocr
from ingest.partition.pdf import PageLine, paragraphs

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLog
    from ingest.values import Element


def read_picture(file: IO[bytes], limits: Limits, pages: PageLog) -> list[Element]:
    """Read the text of a picture, or of each page of a fax or scan in one file."""
    if ocr.engine_name() is None:
        raise UnsupportedFormat(f"a picture: reading its text needs {ocr.HOW_TO_INSTALL}")
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PartitionError(f"not a readable picture ({type(error).__name__})") from error
    # A moving picture is looked at once.
    n_frames = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    lines: list[PageLine] = []
    for number in range(n_frames):
        read = pages.get(number + 1)
        if read is None and not pages.has_room(limits):
            raise LimitExceeded(f"more than {limits.ocr_pages} pages to be read by OCR")
        if read is None:
            image.seek(number)
            if image.width * image.height > limits.pixels:
                raise LimitExceeded(f"has {image.width * image.height} pixels; the limit is {limits.pixels}")
            pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
            read = [(line.text, line.height) for line in ocr.read_picture(np.ascontiguousarray(pixels))]
            pages.put(number + 1, read, slow=True)
        lines += [PageLine(text, size, number + 1, n) for n, (text, size) in enumerate(read, start=1)]
    if not lines:
        raise PartitionError("a picture in which no text was found")
    return paragraphs(lines)
