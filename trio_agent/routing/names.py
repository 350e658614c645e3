"""From the name that a caller used to the models that may serve it. Pure: same input, same choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class Route(Struct, frozen=True):
    """The models to try, in order. `routed` says that a role chose them, not the caller."""

    models: tuple[str, ...]
    routed: bool = False


class UnknownRoleError(Exception):
    """The caller named a role that the configuration does not have; the message names those it has."""


def choose(
    model: str | None, role: str | None, *, aliases: Mapping[str, str], roles: Mapping[str, Sequence[str]]
) -> Route:
    """Resolve aliases and roles.

    A role chooses only where no model is named: hints on a named model change nothing. An alias stands
    for one model, and is not looked up twice.

    Raises:
        UnknownRoleError: no such role.
        ValueError: neither a model nor a role was named.
    """
    if model is not None:
        return Route((aliases.get(model, model),))
    if role is None:
        raise ValueError("neither a model nor a role")
    if role not in roles:
        known = ", ".join(sorted(roles)) or "none"
        raise UnknownRoleError(f"There is no role {role!r} here. The roles are: {known}.")
    return Route(tuple(aliases.get(each, each) for each in roles[role]), routed=True)
