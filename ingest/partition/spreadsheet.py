"""csv, tsv, xls: tables as Markdown rows."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded
from ingest.partition import unstructured_api
from ingest.partition.decoding import decode
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits


def read_csv(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read comma, semicolon, tab or bar separated values in any encoding.

    By Python's csv: unstructured's reader raises on GB18030 and loads pandas for it.
    """
    text = decode(file.read(limits.file_bytes))
    try:
        dialect: type[csv.Dialect] | str = csv.Sniffer().sniff(text[:16384], delimiters=",;\t|")
    except csv.Error:
        dialect = "excel-tab" if "\t" in text[:4096] else "excel"
    csv.field_size_limit(1_000_000)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), dialect))
    except csv.Error as error:
        raise LimitExceeded(f"not readable as a table: {error}") from error
    table = markdown_table(rows)
    return [Element("Table", table)] if table else []


def read_xls(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a workbook of Excel 97."""
    return unstructured_api.read_xls(io.BytesIO(file.read(limits.file_bytes)))
