"""What a script must be, checked when it is given and not amid a turn."""

from __future__ import annotations

from typing import Final, get_args

import trio

from trio_agent.statemachine import events as ev
from trio_agent.testing.scripts import HANG, Script, pause

_EVENTS: Final = frozenset(get_args(ev.CallEvent))
_SCRIPT: Final = 'testing.says("Hi")'
_WIDEST: Final = 80  # characters of a wrong value that are shown


def checked_script(script: object, where: str) -> Script:
    """See that something is a script, before it is played.

    Args:
        where: what it is called in messages.

    Raises:
        TypeError: it is none.
        ValueError: a pause in it is negative or has no end.
    """
    if not isinstance(script, list | tuple):
        raise TypeError(f"{where} is {_shown(script)}; a script is a list of steps, such as {_SCRIPT}")
    for number, step in enumerate(script):
        _check_step(step, f"{where}, step {number}")
    return script


def _check_step(step: object, where: str) -> None:
    if isinstance(step, list | tuple):
        return  # a provider may yield anything, and a test may want to see what becomes of it
    if isinstance(step, int | float) and not isinstance(step, bool):
        pause(step)
    elif type(step) in _EVENTS:
        raise TypeError(
            f"{where} is a single event; a step is a list of them. If this is a whole script, it is missing "
            f"the list that it stands in: ScriptedProvider([{_SCRIPT}])"
        )
    elif not (isinstance(step, BaseException | trio.Event) or step is HANG or callable(step)):
        raise TypeError(f"{where} is {_shown(step)}; a step is one of `trio_agent.testing.Step`")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


__all__ = ["checked_script"]
