"""One agent loop of LangChain. Takes a task as JSON, prints what came of it as JSON, as `ai_sdk.mjs` does.

Runs in an environment of its own, which has LangChain and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

TASK: dict[str, Any] = json.loads(sys.argv[1])


class City(BaseModel):
    """A city."""

    name: str
    people: int


def write_file(name: str, content: str) -> str:
    """Write a file."""
    Path(TASK["folder"], name).write_text(content)
    return f"{len(content)} characters written"


def make_model() -> Any:
    if TASK["face"] == "messages":
        return ChatAnthropic(
            model=TASK["model"],
            base_url=TASK["url"],
            api_key=TASK["key"],
            max_retries=TASK["retries"],
            max_tokens=1000,
        )
    return ChatOpenAI(
        model=TASK["model"],
        base_url=f"{TASK['url']}/v1",
        api_key=TASK["key"],
        max_retries=TASK["retries"],
        use_responses_api=TASK["face"] == "responses",
        stream_usage=True,
        **TASK["options"],
    )


def told(messages: list[Any], pieces: int) -> dict[str, Any]:
    said = [message for message in messages if isinstance(message, AIMessage)]
    usage = [message.usage_metadata or {} for message in said]
    details = said[-1].response_metadata
    ended = details.get("finish_reason") or details.get("stop_reason") or details.get("status")
    return {
        "text": said[-1].text,
        "steps": [[call["name"] for call in message.tool_calls] for message in said],
        "finishReason": {"end_turn": "stop", "completed": "stop"}.get(ended, ended),
        "usage": {
            "input": sum(each.get("input_tokens", 0) for each in usage),
            "output": sum(each.get("output_tokens", 0) for each in usage),
        },
        "pieces": pieces,
    }


def run() -> dict[str, Any]:
    question = {"messages": [{"role": "user", "content": TASK["prompt"]}]}
    if TASK["way"] == "object":
        made = make_model().with_structured_output(City).invoke(TASK["prompt"])
        return {"object": made.model_dump()}
    agent = create_agent(make_model(), tools=[write_file])
    if TASK["way"] == "whole":
        return told(agent.invoke(question)["messages"], 0)
    pieces = 0
    messages: list[Any] = []
    for mode, chunk in agent.stream(question, stream_mode=["messages", "values"]):
        if mode == "values":
            messages = chunk["messages"]
        else:
            pieces += isinstance(chunk[0], AIMessageChunk) and bool(chunk[0].text)
    return told(messages, pieces)


def main() -> None:
    try:
        result = run()
    except Exception as error:  # noqa: BLE001  which error it is, is what is asked
        status = getattr(error, "status_code", None)
        result = {"error": {"name": type(error).__name__, "status": status, "message": str(error)}}
    print(json.dumps(result))


main()
