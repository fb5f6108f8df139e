"""A response as it is written: the events of an answer become OpenAI's items and stream events."""

import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rag import wire
from rag.citations import Source
from rag.events import Called, End, Event, Retrieved, Text, Thought
from rag.tools import ToolCall

Json = dict[str, Any]
FileOf = Callable[[str], tuple[str, dict[str, Any]]]

_NUMBER = re.compile(r"\d+")


def new_id(prefix: str) -> str:
    """Make an id of OpenAI's form."""
    return f"{prefix}_{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Shown:
    """What of an answer is shown. `file_of` gives the id and the attributes of a document by its path."""

    file_of: FileOf
    with_search: bool
    with_results: bool
    with_summary: bool
    with_logprobs: bool


class ResponseWriter:
    """Writes one response. Each method yields stream events; `response` is what is there so far."""

    def __init__(self, response: Json, shown: Shown) -> None:
        """Begin with a response that has everything but its output."""
        self.response = response
        self._shown = shown
        self._n_events = 0
        self._open: _Thinking | _Saying | None = None
        self._sources: tuple[Source, ...] = ()

    def begin(self) -> Iterator[Json]:
        """Say that there is a response."""
        yield self._event("response.created", response=self._snapshot())
        yield self.still_working()

    def still_working(self) -> Json:
        """Say so again: clients give up on a stream that is silent."""
        return self._event("response.in_progress", response=self._snapshot())

    def take(self, event: Event) -> Iterator[Json]:
        """Write an event of the answer."""
        if isinstance(event, Retrieved):
            self._sources = event.sources
            if self._shown.with_search:
                yield from self._searched(event)
        elif isinstance(event, Thought):
            if not isinstance(self._open, _Thinking):
                yield from self._close()
                self._open = _Thinking(as_summary=self._shown.with_summary)
                yield from self._add(self._open.item, self._open.begin())
            yield from self._emit(self._open.say(event.text))
        elif isinstance(event, Text) and (event.text or self._shown.with_logprobs):
            if not isinstance(self._open, _Saying):
                yield from self._close()
                self._open = _Saying()
                yield from self._add(self._open.item, self._open.begin())
            yield from self._emit(self._open.say(event))
        elif isinstance(event, Called):
            yield from self._close()
            for call in event.calls:
                yield from self._called(call)
        elif isinstance(event, End):
            yield from self._end(event)

    def fail(self, message: str) -> Iterator[Json]:
        """End with an error; what was written so far stays."""
        if self._open is not None:
            self._open.item["status"] = "incomplete"
            self._open = None
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": message}}
        yield self._event("response.failed", response=self._snapshot())

    def _end(self, end: End) -> Iterator[Json]:
        is_cut = end.finish_reason == "length"
        if isinstance(self._open, _Saying):
            yield from self._emit(self._open.cite(self._citations(end, self._open.text)))
        yield from self._close(status="incomplete" if is_cut else "completed")
        self.response |= {
            "status": "incomplete" if is_cut else "completed",
            "completed_at": None if is_cut else wire.now(),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": _usage(end),
        }
        kind = "response.incomplete" if is_cut else "response.completed"
        yield self._event(kind, response=self._snapshot())

    def _searched(self, event: Retrieved) -> Iterator[Json]:
        item: Json = {
            "id": new_id("fs"),
            "type": "file_search_call",
            "status": "in_progress",
            "queries": [event.query],
            "results": None,
        }
        place = {"output_index": len(self.response["output"]), "item_id": item["id"]}
        yield from self._add(item, ())
        for state in ("in_progress", "searching", "completed"):
            yield self._event(f"response.file_search_call.{state}", **place)
        item["status"] = "completed"
        if self._shown.with_results:
            item["results"] = [self._result(source) for source in event.sources]
        yield self._done(item)

    def _result(self, source: Source) -> Json:
        file_id, attributes = self._shown.file_of(source.passage.path)
        return {
            "file_id": file_id,
            "filename": source.passage.path.rpartition("/")[2],
            "score": min(1.0, max(0.0, source.passage.similarity)),
            "text": source.passage.text,
            "attributes": attributes,
        }

    def _called(self, call: ToolCall) -> Iterator[Json]:
        item: Json = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "name": call.name,
            "call_id": call.id,
            "arguments": "",
        }
        place = {"output_index": len(self.response["output"]), "item_id": item["id"]}
        yield from self._add(item, ())
        yield self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        kind = "response.function_call_arguments.done"
        yield self._event(kind, **place, name=call.name, arguments=call.arguments)
        item |= {"status": "completed", "arguments": call.arguments}
        yield self._done(item)

    def _citations(self, end: End, text: str) -> Iterator[Json]:
        """Give the answer's marks in the form that this API has for files."""
        by_number = {source.number: source for source in end.sources or self._sources}
        for annotation in end.annotations:
            place = annotation["url_citation"]
            number = _NUMBER.search(text, place["start_index"], place["end_index"])
            source = by_number.get(int(number[0])) if number else None
            if source is not None:
                file_id, _ = self._shown.file_of(source.passage.path)
                yield {
                    "type": "file_citation",
                    "index": place["start_index"],
                    "file_id": file_id,
                    "filename": source.passage.path.rpartition("/")[2],
                }

    def _close(self, status: str = "completed") -> Iterator[Json]:
        """Bring the item that is being written to its end."""
        if self._open is None:
            return
        yield from self._emit(self._open.end())
        self._open.item["status"] = status
        yield self._done(self._open.item)
        self._open = None

    def _add(self, item: Json, then: Iterable[tuple[str, Json]]) -> Iterator[Json]:
        self.response["output"].append(item)
        place = {"output_index": len(self.response["output"]) - 1}
        yield self._event("response.output_item.added", **place, item=_copy(item))
        yield from self._emit(then)

    def _done(self, item: Json) -> Json:
        place = {"output_index": len(self.response["output"]) - 1}
        return self._event("response.output_item.done", **place, item=_copy(item))

    def _emit(self, parts: Iterable[tuple[str, Json]]) -> Iterator[Json]:
        """Send events of the last item."""
        place = {"output_index": len(self.response["output"]) - 1}
        for kind, fields in parts:
            yield self._event(kind, item_id=self.response["output"][-1]["id"], **place, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return event

    def _snapshot(self) -> Json:
        return {**self.response, "output": [_copy(item) for item in self.response["output"]]}


class _Saying:
    """The message of the answer, while it is written."""

    def __init__(self) -> None:
        self.item: Json = {
            "id": new_id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}

    @property
    def text(self) -> str:
        text: str = self._part["text"]
        return text

    def begin(self) -> Iterator[tuple[str, Json]]:
        yield "response.content_part.added", {"content_index": 0, "part": _copy(self._part)}

    def say(self, piece: Text) -> Iterator[tuple[str, Json]]:
        logprobs = wire.logprobs(list(piece.deltas))["content"]
        self._part["text"] += piece.text
        self._part["logprobs"] += logprobs
        yield (
            "response.output_text.delta",
            {"content_index": 0, "delta": piece.text, "logprobs": logprobs},
        )

    def cite(self, citations: Iterable[Json]) -> Iterator[tuple[str, Json]]:
        for index, citation in enumerate(citations):
            self._part["annotations"].append(citation)
            yield (
                "response.output_text.annotation.added",
                {"content_index": 0, "annotation_index": index, "annotation": citation},
            )

    def end(self) -> Iterator[tuple[str, Json]]:
        done = {"content_index": 0, "text": self._part["text"], "logprobs": self._part["logprobs"]}
        self.item["content"] = [self._part]
        yield "response.output_text.done", done
        yield "response.content_part.done", {"content_index": 0, "part": _copy(self._part)}


class _Thinking:
    """What the model thinks, while it is written: as it is, or as the summary that was asked for."""

    def __init__(self, *, as_summary: bool) -> None:
        self._name = "reasoning_summary" if as_summary else "reasoning"
        self._place = {"summary_index": 0} if as_summary else {"content_index": 0}
        self._part: Json = {"type": "summary_text" if as_summary else "reasoning_text", "text": ""}
        self._as_summary = as_summary
        self.item: Json = {
            "id": new_id("rs"),
            "type": "reasoning",
            "status": "in_progress",
            "summary": [],
        }

    def begin(self) -> Iterator[tuple[str, Json]]:
        kind = "response.reasoning_summary_part.added" if self._as_summary else "response.content_part.added"
        yield kind, {**self._place, "part": _copy(self._part)}

    def say(self, text: str) -> Iterator[tuple[str, Json]]:
        self._part["text"] += text
        yield f"response.{self._name}_text.delta", {**self._place, "delta": text}

    def end(self) -> Iterator[tuple[str, Json]]:
        self.item["summary" if self._as_summary else "content"] = [self._part]
        yield f"response.{self._name}_text.done", {**self._place, "text": self._part["text"]}
        kind = "response.reasoning_summary_part.done" if self._as_summary else "response.content_part.done"
        yield kind, {**self._place, "part": _copy(self._part)}


def _usage(end: End) -> Json:
    return {
        "input_tokens": end.n_prompt_tokens,
        "input_tokens_details": {"cached_tokens": end.n_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": end.n_completion_tokens,
        "output_tokens_details": {"reasoning_tokens": end.n_thought_tokens},
        "total_tokens": end.n_prompt_tokens + end.n_completion_tokens,
    }


def _copy(item: Json) -> Json:
    """Copy what goes on to change."""
    return {key: list(value) if isinstance(value, list) else value for key, value in item.items()}
