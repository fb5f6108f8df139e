"""The prompt of a conversation: what stays the same comes first, and the engine knows it."""

from pathlib import Path

import pytest

from engine.chat_model import GenerationParams
from engine.engine import Engine
from rag.prompt import Prompt, pack
from rag.prompt_files import load_prompts
from rag.query import read_conversation
from rag.retriever import Passage

TALK = [
    {"role": "user", "content": "How many vacation days may I carry over into the next year?"},
    {"role": "assistant", "content": "Up to five unused days [1].\n\n---\n**Sources**\n\n- [1] handbook.md"},
    {"role": "user", "content": "Until when do I have to take them?"},
    {"role": "assistant", "content": "They lapse on 31 March [1].\n\n---\n**Sources**\n\n- [1] handbook.md"},
    {"role": "user", "content": "Who has to agree?"},
]
TEXT = "Up to five unused days move into the next year and lapse on 31 March. The head of department agrees."


def test_earlier_turns_are_not_read_again(starter_chat_gguf: Path) -> None:
    """From the second turn to the third, all but the last question and its sources is known."""
    passages = [Passage((1,), 1, "handbook.md", "Handbook", "default", (), None, TEXT, 1.0, 0.5)]
    engine = Engine.open(chat_model=starter_chat_gguf, embedding_model=None, threads=1, cache_tokens=2048)
    try:
        chat = engine.chat
        assert chat is not None

        def read(n_messages: int) -> tuple[Prompt, int]:
            conversation = read_conversation(TALK[:n_messages])
            prompt = pack(
                conversation, passages, chat=chat, context_tokens=512, room=1024, prompts=load_prompts()
            )
            params = GenerationParams(max_tokens=1, temperature=0, tenant="a")
            generation = chat.generate(prompt.token_ids, params)
            list(generation)
            return prompt, generation.n_cached_tokens

        second, _ = read(3)
        third, n_known = read(5)
        same = next(
            i for i, (a, b) in enumerate(zip(second.token_ids, third.token_ids, strict=False)) if a != b
        )
        kept = chat.detokenize(third.token_ids[:same])
        assert "Up to five unused days [1]." in kept
        assert "Sources\n\n- [1]" not in kept
        block = 32
        assert same - block < n_known <= same
    finally:
        engine.close()


@pytest.mark.parametrize("room", [120, 250, 400, 777, 1500])
def test_passages_are_packed_as_close_as_whole_prompts_tell(starter_chat_gguf: Path, room: int) -> None:
    """Sums over parts stand for prompts: the budget holds all the same, and nothing that fits is missing."""
    lengths = (9, 120, 40, 200, 5, 80, 33, 3)
    texts = [f"Rule {n}: " + " ".join(f"word{n * i} <{i}>," for i in range(n)) for n in lengths]
    passages = [
        Passage((i,), i, f"{i}.md", f"Title {i}", "default", ("Part",), None, text, 1.0, 0.5)
        for i, text in enumerate(texts)
    ]
    engine = Engine.open(chat_model=starter_chat_gguf, embedding_model=None, threads=1, cache_tokens=512)
    try:
        chat = engine.chat
        assert chat is not None
        conversation = read_conversation([{"role": "user", "content": "Which rule holds?"}])

        def packed(passages: list[Passage], room: int) -> Prompt:
            return pack(
                conversation, passages, chat=chat, context_tokens=4096, room=room, prompts=load_prompts()
            )

        prompt = packed(passages, room)
        assert len(prompt.token_ids) <= room
        chosen = [source.passage for source in prompt.sources]
        assert chosen
        for i, passage in enumerate(passages):
            if passage in chosen:
                continue
            before = [p for p in chosen if p.document_id < i]
            together = packed([*before, passage], 1 << 14)
            assert len(together.token_ids) > room
    finally:
        engine.close()
