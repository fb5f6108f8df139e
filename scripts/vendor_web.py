"""Fetch the libraries that the page uses, by package name, and put them under rag/web/vendor.

    python scripts/vendor_web.py            writes them and their checksums
    python scripts/vendor_web.py --check    says whether what lies there is what the packages hold

Needs npm, which asks the registry that it is configured for. Nothing of this runs at install or at run time.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "rag" / "web" / "vendor"
MANIFEST = VENDOR / "vendor.json"
# Package, version, and which of its files become which of ours. Browsers load `.js` only with the right type,
# and some machines do not know the type of `.mjs`.
PACKAGES = {
    "marked": ("18.2.1", {"lib/marked.esm.js": "marked.js", "LICENSE": "marked.LICENSE"}),
    "dompurify": ("3.4.18", {"dist/purify.es.mjs": "purify.js", "LICENSE": "purify.LICENSE"}),
}


def main() -> int:
    """Fetch or compare; exit code 1 where a file differs."""
    files = {name: data for package in PACKAGES for name, data in fetch(package).items()}
    if "--check" in sys.argv[1:]:
        wrong = [name for name, data in files.items() if (VENDOR / name).read_bytes() != data]
        print("\n".join(f"{name} differs from its package" for name in wrong) or "All as in the packages.")
        return 1 if wrong else 0
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (VENDOR / name).write_bytes(data)
    packages = {package: version for package, (version, _) in PACKAGES.items()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    MANIFEST.write_text(json.dumps({"packages": packages, "sha256": sums}, indent=2) + "\n", "utf-8")
    print("\n".join(f"{name}  {len(data)} bytes" for name, data in files.items()))
    return 0


def fetch(package: str) -> dict[str, bytes]:
    """Give the wanted files of a package, by our names."""
    version, wanted = PACKAGES[package]
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"{package}@{version}", "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as members:
            return {
                ours: _without_map(members.extractfile(f"package/{theirs}").read())  # type: ignore[union-attr]
                for theirs, ours in wanted.items()
            }


def _without_map(data: bytes) -> bytes:
    """Leave off the pointer to a source map, which is not there."""
    lines = data.rstrip(b"\n").split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(b"//# sourceMappingURL=")) + b"\n"


if __name__ == "__main__":
    sys.exit(main())
