"""What happens while an answer is made, in the order in which it happens."""

from dataclasses import dataclass
from typing import Any

from engine.chat_model import Delta
from rag.citations import Source
from rag.tools import ToolCall


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The search is done; the numbered sources that the answer may cite."""

    query: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt was admitted; text follows when it has been read."""

    n_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer. `deltas` is what the model said for it, before repair.

    `n_cached_tokens`: of the prompt, those that the engine did not have to read again.
    """

    text: str
    deltas: tuple[Delta, ...] = ()
    n_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks before it answers."""

    text: str
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Called:
    """The model calls tools of the client."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The answer is complete."""

    finish_reason: str
    n_prompt_tokens: int
    n_completion_tokens: int
    sources: tuple[Source, ...] = ()
    cited: tuple[int, ...] = ()
    annotations: tuple[dict[str, Any], ...] = ()
    n_thought_tokens: int = 0
    n_cached_tokens: int = 0
    queued_s: float = 0.0


Event = Retrieved | Started | Thought | Text | Called | End
