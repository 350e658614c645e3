"""What models are sent: a turn that went on, stored or not, is the same turn (the sixth invariant)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from simulation.client import result_of
from simulation.evidence import Evidence
from simulation.tools import words_due
from simulation.upstream import Exchange
from simulation.wires import SERVER_TOOL


def check_results(evidence: Evidence, exchange: Exchange) -> None:
    """Every call in the conversation has one result, and it is that call's."""
    calls, results = calls_in(exchange), results_in(exchange)
    for call_id, (name, arguments) in calls.items():
        found = results.get(call_id)
        if found is None:
            evidence.violate(6, f"{exchange.name}: the result of {call_id} is missing")
        elif not any(words in found for words in _due(evidence, exchange, call_id, name, arguments)):
            evidence.violate(6, f"{exchange.name}: the result of {call_id} is {found[:60]!r}")
    for call_id in results.keys() - calls.keys():
        evidence.violate(6, f"{exchange.name}: a result of {call_id}, which is not in the conversation")


def _due(evidence: Evidence, exchange: Exchange, call_id: str, name: str, arguments: str) -> set[str]:
    """What the result must hold one of."""
    client = evidence.client_of(exchange.ask)
    if name == SERVER_TOOL:
        key = call_id.removeprefix("call_")
        due = words_due(arguments, f"done {key}", evidence.scenario.settings.tool)
        if client.face == "responses" and evidence.scenario.settings.errors == "content":
            due = due | {
                "interrupted"
            }  # an answer that failed in the middle of it, and looks like a whole one
        return due
    if client.embedded:
        return words_due(arguments, result_of(call_id), inf)
    left_out = any(ask.results == "some" for ask in client.asks)
    return {result_of(call_id), *(["interrupted"] if left_out else [])}


KEEPS_REASONING = ("beta", "gamma")
"""Providers whose format has a place for reasoning that must come back."""


def said_in(exchange: Exchange) -> list[Any]:
    """The conversation that a model is sent, in its wire's own items."""
    request = exchange.request
    said: list[Any] = request["input"] if "input" in request else request["messages"]
    return said


def calls_in(exchange: Exchange) -> dict[str, tuple[str, str]]:
    """The name and the arguments of each call in the conversation that a model is sent."""
    calls: dict[str, tuple[str, str]] = {}
    for message in said_in(exchange):
        if message.get("type") == "function_call":
            calls[message["call_id"]] = (message["name"], message["arguments"])
        for call in message.get("tool_calls") or ():
            calls[call["id"]] = (call["function"]["name"], call["function"]["arguments"])
        for block in _blocks(message):
            if block["type"] == "tool_use":
                calls[block["id"]] = (block["name"], json.dumps(block["input"]))
    return calls


def results_in(exchange: Exchange) -> dict[str, str]:
    results: dict[str, str] = {}
    for message in said_in(exchange):
        if message.get("role") == "tool":
            results[message["tool_call_id"]] = str(message["content"])
        if message.get("type") == "function_call_output":
            results[message["call_id"]] = str(message["output"])
        for block in _blocks(message):
            if block["type"] == "tool_result":
                results[block["tool_use_id"]] = str(block["content"])
    return results


def _blocks(message: Mapping[str, object]) -> Iterator[dict[str, str]]:
    content = message.get("content")
    if isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict))


def check_conversations(evidence: Evidence, by_response: Mapping[int, Sequence[Exchange]]) -> None:
    """A turn goes on where it was: what a model said before, its next call is sent, thinking included."""
    parked: dict[str, list[Exchange]] = {}
    for response in sorted(evidence.responses, key=lambda each: each.ended_at):
        for exchange in by_response[id(response)]:
            _check_history(evidence, exchange, response.heard)
        before = list(parked.get(response.turn_id or "", ()))
        for exchange in by_response[id(response)]:
            _check_memory(evidence, exchange, before)
            heard = exchange.ended == "whole" and not evidence.raced(response, exchange)
            if heard and exchange.speaker.calls:
                before.append(exchange)
        if response.turn_id and response.complete and response.finish == "tool_calls":
            parked[response.turn_id] = before


def _check_history(evidence: Evidence, exchange: Exchange, heard: Sequence[str]) -> None:
    """All that was said before is in the conversation, in its order, whoever kept it."""
    rest = str(said_in(exchange))
    for name in heard:
        _, found, rest = rest.partition(f"⟦{name}⟧")
        if not found:
            evidence.violate(8, f"{exchange.name}: what {name} said is missing in its conversation")
            break


def _check_memory(evidence: Evidence, exchange: Exchange, before: Sequence[Exchange]) -> None:
    calls = calls_in(exchange)
    whole = str(said_in(exchange))
    for earlier in before:
        for call in earlier.speaker.calls:
            if call.id not in calls:
                evidence.violate(6, f"{exchange.name}: the call {call.id} of {earlier.name} is missing")
        if earlier.provider == exchange.provider and exchange.provider in KEEPS_REASONING:
            for mark in earlier.speaker.owed_back():
                if mark not in whole:
                    evidence.violate(6, f"{exchange.name}: {mark} of {earlier.name} is missing")
