"""A chat request on its way: what is still to be fed, and what has come out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.generation import Delta, FinishReason, Generation, GenerationParams, TokenLogprob
from engine.grammar import Matcher
from engine.prompt_lookup import NO_GUESS, PromptLookup
from engine.step_times import StepTimes
from engine.stop_text import StopText
from engine.tokenizer import StreamDecoder, Tokenizer

Mask = NDArray[np.uint32]


class ChatRequest:
    """One request of the scheduler, from the queue to its end; only the scheduler's thread touches it."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: GenerationParams,
        *,
        n_most: int,
        decoder: _native.Decoder,
        tokenizer: Tokenizer,
        seed: int,
        generation: Generation,
        known_tokens: Mask | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        """Prepare a request for at most `n_most` tokens.

        `known_tokens`: all that may be drawn, where not every row of the model's matrix has a text.
        Raises: GrammarError, ValueError.
        """
        self.tenant = params.tenant
        self.generation = generation
        self.sequence = decoder.new_sequence(_sampling(params, seed), params.tenant)
        self.cancelled = False
        self.block_names: list[str] | None = None  # of the prompt's blocks on disk
        self.age = 0  # of what is kept of prompts: how often all was forgotten before this one came
        self.n_most = n_most
        self.n_prompt = len(prompt)
        self.tokens = np.empty(len(prompt) + n_most, np.int32)  # the prompt, then what was drawn
        self.tokens[: len(prompt)] = prompt
        self.n_tokens = len(prompt)
        self._block_tokens = decoder.block_tokens
        self._tokenizer = tokenizer
        self._text = StopText(StreamDecoder(tokenizer), params.stop)
        self._matcher = matcher
        self._lookup = PromptLookup()
        if known_tokens is not None:
            self.sequence.set_mask(known_tokens)
        if matcher is not None:
            self.sequence.set_mask(matcher.mask())

    @property
    def n_generated(self) -> int:
        """Count what was drawn."""
        return self.n_tokens - self.n_prompt

    @property
    def n_pending(self) -> int:
        """Count the tokens that are still to be fed."""
        return self.n_tokens - self.sequence.n_cached

    @property
    def is_writing(self) -> bool:
        """Tell whether the next step draws the next token of an answer that has begun."""
        return self.n_generated > 0 and self.n_pending == 1

    def pending(self, n: int) -> NDArray[np.int32]:
        """Return the next `n` tokens to feed."""
        at = self.sequence.n_cached
        return self.tokens[at : at + n]

    def blocks_missing(self, n: int) -> int:
        """Count the cache blocks that feeding `n` tokens takes."""
        return -(-(self.sequence.n_cached + n) // self._block_tokens) - self.sequence.n_blocks

    def reuse(self) -> int:
        """Take over what the cache knows of the tokens to feed; return how many it was.

        The last token is always fed: what follows is drawn from it.
        """
        if self.n_pending <= self._block_tokens or self.sequence.n_cached % self._block_tokens:
            return 0
        return self.sequence.reuse(self.pending(self.n_pending - 1))

    def can_wait_for(self, other: "ChatRequest", n: int) -> bool:
        """Tell whether feeding `n` tokens of `other` makes the next block of this one reusable."""
        end = self.sequence.n_cached + self._block_tokens
        return (
            self.tenant is not None
            and self.tenant == other.tenant
            and end < self.n_tokens
            and self.sequence.n_cached % self._block_tokens == 0
            and other.sequence.n_cached <= self.sequence.n_cached
            and end <= other.sequence.n_cached + n
            and np.array_equal(self.tokens[:end], other.tokens[:end])
        )

    def guess(self, *, n_rows: int, n_expected: float, times: StepTimes) -> NDArray[np.int32]:
        """Guess what follows the next token to feed; see `PromptLookup.guess`.

        A form decides anew after every token what may follow, so that nothing is guessed there.
        """
        n_most = self.n_most - self.n_generated - 1
        if self._matcher is not None or n_most < 1:
            return NO_GUESS
        known = self.tokens[: self.n_tokens]
        return self._lookup.guess(known, n_most=n_most, n_rows=n_rows, n_expected=n_expected, times=times)

    def take(self, drawn: _native.SampledToken) -> FinishReason | None:
        """Add a drawn token and tell the reader; return why the answer ends with it, if it does.

        Raises: GrammarError.
        """
        self.tokens[self.n_tokens] = drawn.id
        self.n_tokens += 1
        self.generation.n_completion_tokens += 1
        if drawn.id in self._tokenizer.eos_ids:
            return "stop"
        text = self._text.push(drawn.id)
        logprobs = () if drawn.logprob is None else (self._logprob(drawn, drawn.logprob),)
        if text or logprobs:
            self.generation.put(Delta(text, n_tokens=1, logprobs=logprobs))
        if self._follow(drawn.id) or self._text.stopped:
            return "stop"
        return "length" if self.n_generated >= self.n_most else None

    def finish(self, reason: FinishReason) -> None:
        """Free everything and end the stream."""
        self.sequence.release()
        self.generation.put(Delta(self._text.finish(is_cut=reason != "stop"), finish_reason=reason))

    def _follow(self, token_id: int) -> bool:
        """Take a token into the grammar and restrict the next draw; return whether it is complete."""
        if self._matcher is None:
            return False
        is_complete = self._matcher.accept(token_id)
        if not is_complete:
            self.sequence.set_mask(self._matcher.mask())
        return is_complete

    def _logprob(self, drawn: _native.SampledToken, logprob: float) -> TokenLogprob:
        def name(token_id: int) -> tuple[str, bytes]:
            data = self._tokenizer.token_bytes(token_id)
            return data.decode("utf-8", "replace"), data

        n_known = self._tokenizer.vocab_size
        top = tuple((*name(token_id), value) for token_id, value in drawn.top_logprobs if token_id < n_known)
        return TokenLogprob(*name(drawn.id), logprob, top)


@dataclass(frozen=True, slots=True)
class Feed:
    """What one chat feeds in a step: tokens that are known, then a guess; and whether to draw after them."""

    chat: ChatRequest
    n_known: int
    draws: bool
    guess: NDArray[np.int32] = field(default_factory=lambda: NO_GUESS)

    @property
    def n_rows(self) -> int:
        """Count the tokens."""
        return self.n_known + len(self.guess)

    @property
    def n_keys(self) -> int:
        """Count what the tokens look back at, all together."""
        return self.n_rows * self.chat.sequence.n_cached + self.n_rows * (self.n_rows + 1) // 2

    def row(self) -> tuple[_native.Sequence, NDArray[np.int32], int]:
        """Return it as the native step takes it."""
        tokens = self.chat.pending(self.n_known)
        if len(self.guess):
            tokens = np.concatenate([tokens, self.guess])
        return self.chat.sequence, tokens, len(self.guess) + 1 if self.draws else 0


def known_tokens(decoder: _native.Decoder, tokenizer: Tokenizer) -> Mask | None:
    """Return the mask of tokens that have a text, None where all have: matrices may be padded with rows."""
    if decoder.vocab_size == tokenizer.vocab_size:
        return None
    bits = np.zeros(-(-decoder.vocab_size // 32) * 32, np.uint8)
    bits[: tokenizer.vocab_size] = 1
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def _sampling(params: GenerationParams, seed: int) -> _native.SamplingParams:
    return _native.SamplingParams(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        penalty_window=-1,
        seed=seed,
        logit_bias=dict(params.logit_bias),
        n_logprobs=-1 if params.n_logprobs is None else params.n_logprobs,
    )
