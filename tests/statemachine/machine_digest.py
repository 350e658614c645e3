"""What every script makes of the machine, as one digest; run as a program, for a process of its own.

Prints the digest, and then the order in which this process goes through a set, for that is what differs
between processes.
"""

from __future__ import annotations

import hashlib

import msgspec
from machine_values import step
from test_machine_scripts import SCRIPTS

from trio_agent.statemachine import Turn


def digest() -> str:
    """All effects and all snapshots of all scripts."""
    seen = hashlib.sha256()
    for script in SCRIPTS:
        turn = Turn(script.spec)
        for event in script.events:
            turn, effects = step(turn, event)
            seen.update(msgspec.json.encode(effects))
            seen.update(turn.snapshot())
    return seen.hexdigest()


if __name__ == "__main__":
    print(digest())
    print(*{script.title for script in SCRIPTS}, sep="; ")
