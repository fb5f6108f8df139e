"""Conversations to answers through the native decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.chat_template import ChatTemplate
from engine.errors import ContextTooLong
from engine.generation import Delta, Generation, GenerationParams, TokenLogprob
from engine.grammar import GrammarVocabulary
from engine.scheduler import Scheduler
from engine.tokenizer import Tokenizer

__all__ = ["ChatModel", "Delta", "Generation", "GenerationParams", "TokenLogprob"]


class ChatModel:
    """A model that continues conversations; thread-safe."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        scheduler: Scheduler,
        *,
        context_length: int,
        vocab_size: int,
        n_weights: int,
        tool_template: ChatTemplate | None = None,
    ) -> None:
        """Join the parts; see `Engine.open`. `context_length` is what fits model and cache.

        `tool_template` writes conversations with tools, where the file holds another one for them.
        """
        self.name = name
        self.context_length = context_length
        self.n_weights = n_weights
        self.vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._template = template
        self._tool_template = tool_template or template
        self._scheduler = scheduler
        self._grammar_vocabulary = GrammarVocabulary(tokenizer, vocab_size=vocab_size)

    @property
    def end_ids(self) -> frozenset[int]:
        """Return the tokens that end an answer."""
        return frozenset(self._tokenizer.eos_ids)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of plain text, without special ones."""
        return len(self._tokenizer.encode(text, add_special=False))

    @property
    def knows_tools(self) -> bool:
        """Say whether the model's template tells of tools, calls and results."""
        return "tools" in self._tool_template.source

    @property
    def thinks(self) -> bool:
        """Say whether the model may write thoughts in <think> tags before its answer."""
        return any("</think>" in t.source for t in (self._template, self._tool_template))

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        """Say whether a prompt ends where a thought has begun: some templates write the tag themselves."""
        return self.thinks and self.detokenize(prompt[-8:]).rstrip().endswith("<think>")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
    ) -> str:
        """Write a conversation as the model's template has it, up to where the answer begins.

        `tools`: function tools as OpenAI writes them, for a template that knows them. `thinking`: whether a
        template that leaves the choice lets the model think first; None as the template does by itself.

        Raises: TemplateError.
        """
        extra = {} if thinking is None else {"enable_thinking": thinking}
        if tools:
            return self._tool_template.write(messages, tools=list(tools), **extra)
        return self._template.write(messages, **extra)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Cut text into ids, nothing added; `special` recognises control tokens in it."""
        return self._tokenizer.encode(text, add_special=False, parse_special=special)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """Join ids to text, control tokens written out. Raises: IndexError for an unknown id."""
        return self._tokenizer.decode(token_ids, skip_special=False)

    def prompt_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
    ) -> list[int]:
        """Render and cut a conversation; see `render`. Raises: TemplateError."""
        rendered = self.render(messages, tools=tools, thinking=thinking)
        return self._tokenizer.encode(rendered, parse_special=True)

    def generate(self, prompt: Sequence[int], params: GenerationParams) -> Generation:
        """Begin to continue `prompt`.

        Raises: ContextTooLong, QueueFull, EngineClosed, GrammarError, ValueError (an id or bias outside the
        vocabulary).
        """
        left = self.context_length - len(prompt)
        if left < 1:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} tokens; {self.name} reads at most {self.context_length - 1}"
            )
        if not prompt:
            raise ValueError("the prompt has no tokens")
        for token_id in prompt:
            if not 0 <= token_id < self.vocab_size:
                raise ValueError(f"token {token_id} is outside the vocabulary of {self.vocab_size}")
        n_most = left if params.max_tokens is None else min(left, params.max_tokens)
        matcher = self._grammar_vocabulary.matcher(params.grammar) if params.grammar else None
        return self._scheduler.chat(prompt, params, n_most=n_most, matcher=matcher)
