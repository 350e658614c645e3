"""What `trio-agent auth` prints: names and places, never a key or a part of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trio_agent.cli.text_width import aligned
from trio_agent.config.key_forms import without_keys
from trio_agent.providers.credential_source import CredentialSource
from trio_agent.providers.key_names import KEY_USES, modules_reading


def names_to_json(environ: Mapping[str, str], stored: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every key by name. `hidden` says that the file has one which the environment keeps from being used."""
    known = [name for use in KEY_USES.values() for name in use.variables]
    found = []
    for name in dict.fromkeys([*known, *sorted(stored)]):
        in_environment = bool(environ.get(name, "").strip())
        in_file = bool(stored.get(name, "").strip())
        if in_environment or name in stored:
            source = "environment" if in_environment else "file" if in_file else "none"
            hidden = in_environment and in_file
            found.append(
                {"name": name, "source": source, "hidden": hidden, "modules": list(modules_reading(name))}
            )
    return found


def names_table(environ: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    """The same in lines, with a head; no line where there is no key."""
    rows = [
        (
            each["name"],
            each["source"] + (", hides the file's" if each["hidden"] else ""),
            ", ".join(each["modules"]) or "-",
        )
        for each in names_to_json(environ, stored)
    ]
    return aligned([("name", "comes from", "modules"), *rows]) if rows else []


def sources_to_json(sources: Sequence[CredentialSource]) -> str:
    """One JSON list, an object for each provider."""
    return json.dumps(
        [
            {
                "provider": each.provider,
                "module": without_keys(each.module),
                "source": each.source,
                "name": each.name or None,
                "required": each.required,
                "missing": each.lacking,
                "variables": list(each.variables),
            }
            for each in sources
        ],
        indent=2,
    )


def sources_table(sources: Sequence[CredentialSource], lacking: Sequence[CredentialSource]) -> str:
    """The same in lines, with a head; `lacking` are those whose lack is a failure."""
    rows = [("provider", "module", "key", "comes from")]
    for each in sources:
        place = f"{each.source}: {each.name}" if each.name else "-"
        state = "MISSING" if each in lacking else _state(each)
        rows.append((each.provider, without_keys(each.module), state, place))
    return "\n".join(aligned(rows))


def _state(source: CredentialSource) -> str:
    if source.source == "unknown":
        return "its module knows"
    if source.source == "none":
        return "none" if source.required else "not needed"
    return "there"
