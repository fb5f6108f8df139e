"""LlamaIndex, unmodified, for test_other_clients.py, in an environment of its own. Prints one JSON object."""

import asyncio
import json
import sys
from typing import Any, Literal

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

BASE, CHAT_NAME = sys.argv[1:]
QUESTION = [ChatMessage(role="user", content="When does the nightly backup start?")]
STATEMENT = "The backup starts at two in UTC."


class Start(BaseModel):
    """When a backup starts."""

    hour: int = Field(ge=0, le=23)
    zone: Literal["UTC", "CET"]


def weather(place: Literal["Oslo"]) -> str:
    """Tell the weather in a place."""
    return f"Rain in {place}."


def model(name: str, **more: Any) -> OpenAILike:
    given: dict[str, Any] = {"is_chat_model": True, "temperature": 0, **more}
    return OpenAILike(model=name, api_base=BASE, api_key="any", max_retries=0, **given)


async def streamed(llm: OpenAILike) -> str:
    return "".join([chunk.delta or "" async for chunk in await llm.astream_chat(QUESTION)])


def main() -> None:
    documents, plain = model("quarry"), model(CHAT_NAME, is_chat_model=False, max_tokens=8)
    calling = model(CHAT_NAME, is_function_calling_model=True)
    forming = model(CHAT_NAME, is_function_calling_model=True, should_use_structured_outputs=True)
    embeddings = OpenAILikeEmbedding(
        model_name="text-embedding-3-small", api_base=BASE, api_key="any", max_retries=0
    )
    texts = ["The nightly backup starts at 02:40.", "The printer is on the third floor."]
    index = VectorStoreIndex.from_documents([Document(text=t) for t in texts], embed_model=embeddings)
    question = str(QUESTION[0].content)
    said = {
        "whole": documents.chat(QUESTION).message.content,
        "streamed": "".join(chunk.delta or "" for chunk in documents.stream_chat(QUESTION)),
        "streamed_async": asyncio.run(streamed(documents)),
        "completed": documents.complete(question).text,
        "continued": plain.complete("One, two, three,").text,
        "continued_streamed": "".join(c.delta or "" for c in plain.stream_complete("One, two, three,")),
        "formed": forming.structured_predict(Start, PromptTemplate(STATEMENT)).model_dump(),
        "formed_by_tool": calling.as_structured_llm(Start).complete(STATEMENT).raw.model_dump(),
        "called": str(
            calling.predict_and_call(
                [FunctionTool.from_defaults(weather)], user_msg="Weather in Oslo?", tool_required=True
            )
        ),
        "dimensions": [
            len(embeddings.get_query_embedding("a")),
            *map(len, embeddings.get_text_embedding_batch(["b", "c"])),
        ],
        "retrieved": index.as_retriever(similarity_top_k=1).retrieve(question)[0].text,
        "queried": str(index.as_query_engine(llm=calling, similarity_top_k=1).query(question)),
    }
    try:
        documents.chat(QUESTION, store=True)
    except Exception as error:  # noqa: BLE001 - whatever the package makes of it
        said["error"] = [type(error).__name__, getattr(error, "code", None)]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
