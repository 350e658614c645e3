"""Making a case that fails smaller: fewer steps, smaller bodies, fewer headers; as long as it still fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.steps import Case, Http, Raw, Step, WebSocket
from msgspec.structs import replace


def shrunk(case: Case, fails: Callable[[Case], bool], most: int = 20) -> Case:
    """The smallest case that was found, in at most so many tries."""
    tries = 0
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(case):
            tries += 1
            if tries > most:
                return case
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for index in range(len(case.steps)):
        if len(case.steps) > 1:
            yield replace(case, steps=case.steps[:index] + case.steps[index + 1 :])
    for index, step in enumerate(case.steps):
        for other in _smaller_steps(step):
            yield replace(case, steps=(*case.steps[:index], other, *case.steps[index + 1 :]))


def _smaller_steps(step: Step) -> Iterator[Step]:
    match step:
        case Http():
            if step.chunks is not None:
                yield replace(step, chunks=None)
            for at in range(len(step.headers)):
                yield replace(step, headers=step.headers[:at] + step.headers[at + 1 :])
            yield from (replace(step, body=body) for body in _smaller_bodies(step.body))
        case Raw():
            for at in range(len(step.pieces)):
                if len(step.pieces) > 1:
                    yield replace(step, pieces=step.pieces[:at] + step.pieces[at + 1 :])
        case WebSocket():
            for at, frame in enumerate(step.frames):
                if len(step.frames) > 1:
                    yield replace(step, frames=step.frames[:at] + step.frames[at + 1 :])
                for body in _smaller_bodies(frame.payload):
                    frames = (*step.frames[:at], replace(frame, payload=body), *step.frames[at + 1 :])
                    yield replace(step, frames=frames)


def _smaller_bodies(body: bytes) -> Iterator[bytes]:
    try:
        value = json.loads(body)
    except ValueError:
        if len(body) > 8:
            yield body[: len(body) // 2]
            yield body[len(body) // 2 :]
        return
    for smaller in _without_one(value):
        yield json.dumps(smaller).encode("utf-8", "surrogatepass")


def _without_one(value: Any) -> Iterator[Any]:
    """The value without one of its members; the outer ones first."""
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
        for key, inner in value.items():
            yield from ({**value, key: smaller} for smaller in _without_one(inner))
    elif isinstance(value, list):
        for at in range(len(value)):
            yield value[:at] + value[at + 1 :]
        for at, inner in enumerate(value):
            yield from ([*value[:at], smaller, *value[at + 1 :]] for smaller in _without_one(inner))
