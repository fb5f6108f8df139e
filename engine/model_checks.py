"""Remember which models have passed their check, so that each is asked once."""

import contextlib
import hashlib
import json
from pathlib import Path

_FILE = "checked_models.json"
_MOST_KEPT = 100


class ModelChecks:
    """The fingerprints of models that passed, in a folder; None keeps them nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / _FILE
        self._passed: list[str] = []
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                kept = json.loads(self._path.read_text("utf-8"))
                self._passed = [str(entry) for entry in kept] if isinstance(kept, list) else []

    def has_passed(self, fingerprint: object) -> bool:
        """Say whether a model of this fingerprint has passed before."""
        return _key(fingerprint) in self._passed

    def keep(self, fingerprint: object) -> None:
        """Remember that a model has passed. A folder that cannot be written only costs the next check."""
        self._passed = [*self._passed, _key(fingerprint)][-_MOST_KEPT:]
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps(self._passed), "utf-8")
                part.replace(self._path)


def _key(fingerprint: object) -> str:
    return hashlib.sha256(repr(fingerprint).encode()).hexdigest()
