"""Text of a growing completion, ended before the first stop string."""

from engine.tokenizer import StreamDecoder


class StopText:
    """Turns tokens to text and holds back what may be the beginning of a stop string."""

    def __init__(self, decoder: StreamDecoder, stops: tuple[str, ...]) -> None:
        """Begin with an empty completion."""
        self._decoder = decoder
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Add a token; return the text that is safe to show. Sets `stopped` at a stop string."""
        return self._release(self._decoder.push(token_id), last=False)

    def finish(self, *, is_cut: bool) -> str:
        """End the completion; return what was held back.

        `is_cut`: the model had more to say, so the bytes of a character that is not whole yet are dropped;
        where it ended by itself they show as U+FFFD.
        """
        return self._release("" if is_cut else self._decoder.flush(), last=True)

    def _release(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        n_held = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
