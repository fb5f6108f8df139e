"""Write tests/data/word_97.doc with LibreOffice 7.4.7 (libreoffice-writer-nogui).

python -m tests.golden.make_old_office
"""

import subprocess
import tempfile
from pathlib import Path

TARGET = Path(__file__).parents[1] / "data"
PAGE = (
    '<meta charset="utf-8"><h1>差旅制度</h1><h2>Trains</h2><p>员工优先乘坐火车，不坐飞机。</p>'
    "<ul><li>first</li><li>second</li></ul>"
    "<table><tr><th>name</th><th>days</th></tr><tr><td>Ann</td><td>15</td></tr></table>"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "word_97.html"
        source.write_text(PAGE)
        subprocess.run(
            ["soffice", "--headless", f"-env:UserInstallation={(folder / 'profile').as_uri()}",
             "--convert-to", "doc:MS Word 97", "--outdir", TARGET, source],
            check=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
