"""A fork as a recording of its own, which replays like any other."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trio_agent.boot import House
from trio_agent.recording.files import Job, Pen
from trio_agent.recording.format import SUFFIX, Header, ProviderFacts
from trio_agent.recording.header import Premises, header_of
from trio_agent.recording.masking import Masker
from trio_agent.recording.plain import plain
from trio_agent.recording.secrets import known_secrets, maskable, names_in_use
from trio_agent.recording.trace import Line
from trio_agent.replay.house import config_of
from trio_agent.replay.successor import Successor

_MOST_COPIES = 10_000


def provider_id_for(header: Header, house: House, heir: Successor, name: str) -> str:
    """The name of the heir's provider in the turn: its own, unless the recording means another one by that.

    Args:
        name: of the recording, for messages.

    Raises:
        ReplayError: the header's config is wrong.
    """
    own = heir.ref.provider_id
    recorded = config_of(header, name).providers
    if own not in recorded:
        return own
    now = _header_of_heir(house, heir)
    section, facts = recorded[own], header.providers.get(own, ProviderFacts())
    here = now.config["providers"][own]
    same_place = section.module == here["module"] and section.config == here["config"]
    if same_place and facts.limits == now.providers[own].limits:
        return own
    taken = f"{own}-live"
    while taken in recorded:
        taken += "-live"
    return taken


def forked_header(header: Header, house: House, heir: Successor, description: str) -> Header:
    """The header of a recording that goes on with another model, nothing secret in it."""
    now = _header_of_heir(house, heir)
    own, name = heir.ref.provider_id, heir.candidate.provider
    sections = dict(header.config.get("providers", {}))
    facts = dict(header.providers)
    mine = now.providers[own]
    if name not in sections:
        sections[name] = now.config["providers"][own]
        facts[name] = mine
    elif name in facts:
        known = {model["id"] for model in facts[name].models}
        more = [model for model in mine.models if model["id"] not in known]
        facts[name] = msgspec.structs.replace(facts[name], models=[*facts[name].models, *more])
    return msgspec.structs.replace(
        header,
        description=description,
        timers="recorded",
        versions=now.versions,
        config=header.config | {"providers": sections},
        providers=facts,
        prices=header.prices | {heir.candidate.origin: plain(heir.candidate.price)},
    )


def write_fork(folder: Path, stem: str, header: Header, lines: list[Line], house: House) -> Path:
    """Write a fork into a new file, masked as the recorder does it.

    Raises:
        OSError: it cannot be written.
    """
    secrets = known_secrets(house.setup.config, house.setup.mounted)
    mask = Masker(maskable(secrets, names_in_use(house.setup.config, house.setup.mounted)))
    job = Job(_free(folder, stem), header, lines, last=True)
    Pen(mask, None).write([job])
    if job.failure is not None:
        raise OSError(0, job.failure, str(job.path))
    return job.path


def _free(folder: Path, stem: str) -> Path:
    for number in range(1, _MOST_COPIES):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}{SUFFIX}"
        if not path.exists():
            return path
    raise OSError(0, f"there are {_MOST_COPIES} forks already", str(folder))


def _header_of_heir(house: House, heir: Successor) -> Header:
    premises = Premises(house.setup.config, house.setup.mounted, house.setup.prices, ())
    return header_of(premises, face="", models=((heir.ref.provider_id, heir.ref.model.id),))


__all__ = ["forked_header", "provider_id_for", "write_fork"]
