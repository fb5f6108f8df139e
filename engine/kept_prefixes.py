"""Which beginnings of prompts go to disk, and how they come back; for the scheduler's thread."""

import hashlib
import time
from pathlib import Path

import numpy as np

from engine import _native
from engine.chat_request import ChatRequest
from engine.prefix_store import PrefixStore

_LEAST_BLOCKS = 4  # of a beginning that is worth a file
_PIECE_BYTES = 4096  # of each tensor that is looked at


class KeptPrefixes:
    """A store, while there is one, and how often everything was forgotten."""

    def __init__(self, block_tokens: int) -> None:
        """Begin without a store."""
        self.store: PrefixStore | None = None
        self.age = 0
        self.n_restored_tokens = 0
        self._block_tokens = block_tokens

    def restore(self, chat: ChatRequest, *, until: float) -> tuple[int, bool]:
        """Take blocks of a prompt from disk, `until` a moment of time.perf_counter().

        Return how many tokens they hold, and whether there are more.
        """
        store, sequence = self.store, chat.sequence
        if store is None or chat.tenant is None or not self._is_at_block(chat):
            return 0, False
        n_before = sequence.n_cached
        # The last token is always fed: what follows is drawn from it.
        n_blocks = (chat.n_tokens - 1) // self._block_tokens
        for name in self._names(store, chat)[n_before // self._block_tokens : n_blocks]:
            if name not in store:
                break
            if time.perf_counter() > until:
                return self._note(sequence.n_cached - n_before), True
            block = store.read(name)
            tokens = chat.pending(self._block_tokens)
            if block is None or not sequence.restore(tokens, np.frombuffer(block, np.uint8)):
                break
        return self._note(sequence.n_cached - n_before), False

    def keep(self, chat: ChatRequest, *, until: float) -> None:
        """Hand the blocks that a prompt had in common with an earlier one to the store, at the answer's end.

        What was read once may never be asked for again; what was asked for twice will be. Nothing that was
        known before everything was forgotten.
        """
        store = self.store
        n_blocks = chat.generation.n_cached_tokens // self._block_tokens
        if store is None or chat.tenant is None or chat.age != self.age or n_blocks < _LEAST_BLOCKS:
            return
        names = self._names(store, chat)[:n_blocks]
        blocks: dict[str, bytes] = {}
        for i, name in enumerate(names):
            if name in store:
                continue
            if time.perf_counter() > until or not store.takes(len(blocks) + 1):
                names = names[:i]  # the rest when it is asked for again
                break
            blocks[name] = chat.sequence.copy_block(i)
        store.keep(names, blocks)

    def forget(self) -> None:
        """Remove what is on disk. Raises: OSError."""
        self.age += 1
        if self.store is not None:
            self.store.forget()

    def _is_at_block(self, chat: ChatRequest) -> bool:
        return chat.sequence.n_cached % self._block_tokens == 0 and chat.n_pending > self._block_tokens

    def _names(self, store: PrefixStore, chat: ChatRequest) -> list[str]:
        """Name the full blocks of a prompt, once."""
        if chat.block_names is None:
            assert chat.tenant is not None  # noqa: S101 - the callers have looked
            prompt = chat.tokens[: chat.n_prompt]
            chat.block_names = list(store.keys(chat.tenant, prompt, self._block_tokens))
        return chat.block_names

    def _note(self, n_tokens: int) -> int:
        self.n_restored_tokens += n_tokens
        return n_tokens


def cache_fingerprint(path: Path, instruction_set: str, cache_type: str) -> bytes:
    """Tell apart what computes different keys and values for the same tokens, without reading all weights.

    The model file's metadata, size and time, a piece of each tensor; and the engine itself, whose rounding
    differs between its versions and instruction sets.
    """
    info = path.stat()
    file = _native.GgufFile(str(path))
    engine = hashlib.sha256(Path(str(_native.__file__)).read_bytes()).hexdigest()
    digest = hashlib.sha256(
        repr((engine, instruction_set, cache_type, info.st_size, info.st_mtime_ns)).encode()
    )
    for key, value in file.raw_values():
        digest.update(repr((key, len(value))).encode() + value)
    with path.open("rb") as weights:
        for tensor in file.tensors():
            digest.update(repr((tensor.name, tensor.type, tensor.shape, tensor.offset)).encode())
            weights.seek(tensor.offset + tensor.n_bytes // 2)
            digest.update(weights.read(min(_PIECE_BYTES, tensor.n_bytes - tensor.n_bytes // 2)))
    return digest.digest()
