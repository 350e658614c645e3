"""Try the server with other people's programs, and say in a line for each what was seen.

    PYTHONPATH=tests:tools python -m interop [GROUP ...]

Installs what it needs into a folder outside the repository (`INTEROP_CACHE`). Exits with 1 when something
differs from what is expected, with 2 when a program that is needed is not on this machine.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from interop import sdks, upstreams
from interop.agent_cases import CODING_AGENTS
from interop.cases import Group, run_case
from interop.installing import Cache, NotHereError

GROUPS: dict[str, Group] = {
    "aimock": upstreams.aimock,
    "litellm": upstreams.litellm,
    "ai-sdk": sdks.ai_sdk,
    "langchain": sdks.langchain,
    **CODING_AGENTS,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="interop", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], metavar="GROUP", help=", ".join(GROUPS))
    chosen = parser.parse_args().groups or list(GROUPS)
    cache = Cache.default()
    tried = differ = 0
    missing: list[str] = []
    for name in chosen:
        try:
            with closing(GROUPS[name](cache)) as cases:
                for case in cases:
                    tried += 1
                    differ += not run_case(name, case)
        except NotHereError as error:
            missing.append(f"{name} was not tried: {error}")
            print(f"----  {missing[-1]}", flush=True)
    print(f"{tried} tried, {differ} with differences, {len(missing)} groups not tried")
    return 1 if differ else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
