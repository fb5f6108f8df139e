"""Call the service as a client does, and check what OpenAI clients rely on."""

import json
from typing import Any

import httpx
from fastapi import FastAPI


def ask(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "quarry", "messages": [{"role": "user", "content": question}], **more}


QUESTION = ask("How many vacation days carry over?")


def client_of(app: FastAPI, host: str = "127.0.0.1:8080") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


def events_of(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def assert_openai_error(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert response.json()["request_id"] == response.headers["x-request-id"]
    message: str = error["message"]
    return message
