"""Bytes to text without ever replacing a character."""

from __future__ import annotations

import codecs

from ingest.errors import UndecodableText

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 256 * 1024
_WESTERN = frozenset("àâäáåãçéèêëíîïóôöõúùûüñßœæÀÂÄÁÅÇÉÈÊÖÓÜÚÑ€‚„…‘’“”•–—«»°§©®™¿¡·²³½\xa0")


def decode(data: bytes) -> str:
    """Decode by byte order mark, then strict UTF-8, then by what charset-normalizer finds likeliest.

    Raises UndecodableText; never puts a replacement character.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _strict(data, _guess(data))
    if "\x00" in text:
        return _strict(data, _guess_zeros(data))
    return text


def decode_lines(data: bytes) -> str:
    """Decode, with newlines as \\n."""
    return with_newlines(decode(data))


def with_newlines(text: str) -> str:
    """Write every newline as \\n."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UndecodableText(
            f"not valid {encoding} at byte {error.start} of {len(data)}; save the file as UTF-8"
        ) from error


def _guess(data: bytes) -> str:
    """Return the likeliest encoding; the East Asian ones are tried on the whole, the others on a sample.

    A Chinese text in GB18030 or Big5 decodes to common characters in the right one and to rare ones or
    nothing in the other.
    """
    ranked = sorted(
        (_rarity(data, encoding), order, encoding) for order, encoding in enumerate(("gb18030", "big5"))
    )
    if ranked[0][0] < 0.2:
        return ranked[0][2]
    if _is_western(data):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE_BYTES]).best()
    if best is None:
        raise UndecodableText(
            f"no encoding fits the {len(data)} bytes (tried UTF-8, UTF-16, GB18030, Big5 and others)"
        )
    return best.encoding


def _is_western(data: bytes) -> bool:
    """Tell whether all of it is everyday Western European text; guessers mistake short ones for Baltic."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return all(character < "\x80" or character in _WESTERN for character in text)


def _rarity(data: bytes, encoding: str) -> float:
    """Return the share of non-ASCII characters that are rare in Chinese text; 1.0 if undecodable."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return 1.0
    wide = [character for character in text if ord(character) > 127]
    if not wide:
        return 1.0
    # GB2312's first level (and Big5's, the frequent half) are the 3,755 (5,401) everyday characters.
    return sum(not _is_everyday(character, encoding) for character in wide) / len(wide)


def _is_everyday(character: str, encoding: str) -> bool:
    if "\uff00" <= character <= "\uffef" or "\u3000" <= character <= "\u303f" or character in "“”‘’—…·":
        return True
    try:
        code = character.encode("gb2312" if encoding == "gb18030" else "big5")
    except UnicodeEncodeError:
        return False
    lead = code[0]
    return 0xB0 <= lead <= 0xD7 if encoding == "gb18030" else 0xA4 <= lead <= 0xC6


def _guess_zeros(data: bytes) -> str:
    """Tell UTF-16 without a mark, whose ASCII has a zero in every other byte, from binary data."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > 0.2 * len(data) / 2 and min(even, odd) < 0.02 * len(data):
        return "utf-16-be" if even > odd else "utf-16-le"
    raise UndecodableText(f"holds zero bytes ({even + odd} of {len(data)}); this is not text")
