"""What is asked of the service, what answers are made from, and how long they may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engine.chat_model import GenerationParams
from rag.forms import Form
from rag.links import Linking
from rag.models import Target
from rag.ports import ChatModel, Engine, Message
from rag.prompt_files import Prompts
from rag.retriever import Retriever
from rag.tools import Tools

_FORMED_TOKENS = 1024

Answers = Literal["strict", "mixed"]


@dataclass(frozen=True, slots=True)
class Search:
    """How documents are searched, where the request says so. `accepts` gets the path of a document."""

    limit: int | None = None
    accepts: Callable[[str], bool] | None = None
    least_similarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A conversation, what it is for, and how to draw the answer.

    params.max_tokens None: as many as `answer_tokens` and the context allow. With a form or a tool the text
    is JSON and nothing else: no marks, no list of sources.
    """

    target: Target
    messages: Sequence[Message]
    params: GenerationParams
    with_footer: bool = True
    form: Form | None = None
    tools: Tools | None = None
    thinking: bool | None = None
    """Whether a model that thinks first shall; None: as it does by itself."""
    answers: Answers | None = None
    """Whether an answer may go beyond the documents; None: as the service is set."""
    search: Search = Search()
    linking: Linking | None = None
    """How marks become links; None: they stay marks."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What answers are made from."""

    engine: Engine
    retriever: Retriever
    context_tokens: int
    answer_tokens: int
    prompts: Prompts
    answers: Answers = "strict"


def wanted_tokens(ask: Ask, parts: Parts) -> int:
    """Tell how long the answer may be; one cut in the middle of its form is of no use."""
    is_formed = ask.form is not None or ask.tools is not None
    usual = max(parts.answer_tokens, _FORMED_TOKENS) if is_formed else parts.answer_tokens
    return ask.params.max_tokens or usual


def share_context(ask: Ask, chat: ChatModel, parts: Parts) -> tuple[int, GenerationParams]:
    """Share the context between prompt and answer; at most a quarter of it is kept for the answer."""
    wanted = wanted_tokens(ask, parts)
    reserved = min(wanted, chat.context_length // 4)
    return chat.context_length - reserved, replace(ask.params, max_tokens=reserved)
