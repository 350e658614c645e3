"""Reading a provider's `config` strictly: unknown keys and wrong types are told with their place. No HTTP."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from trio_agent.providers.contract import ProviderConfigError
from trio_agent.providers.model_settings import ModelSettings, PriceSettings

S = TypeVar("S", bound=Struct)

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400, extra={"unit": "seconds"})]
Retries: TypeAlias = Annotated[int, Meta(ge=0, le=10)]


def parse_config(config: Mapping[str, Any], kind: type[S]) -> S:
    """`config` as a struct; entries of `models` are `ModelSettings` or ids.

    Raises:
        ProviderConfigError: an unknown key (with the nearest valid one), a wrong type or value. Names the
            path; never shows the value, which may be a secret.
    """
    _refuse_unknown_keys(config, kind, "config")
    models = config.get("models")
    for place, model in enumerate(models if isinstance(models, (list, tuple)) else ()):
        if isinstance(model, Mapping):
            _refuse_unknown_keys(model, ModelSettings, f"config.models[{place}]")
            if isinstance(model.get("price"), Mapping):
                _refuse_unknown_keys(model["price"], PriceSettings, f"config.models[{place}].price")
    try:
        return msgspec.convert(dict(config), kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        path = "config" + where.rstrip("`").replace("[...]", "[*]")
        raise ProviderConfigError(what, remedy=f"Correct {path}.", path=path) from None


def _refuse_unknown_keys(given: Mapping[str, Any], kind: type[Struct], path: str) -> None:
    known = _keys_of(kind)
    for key in given:
        if key not in known:
            name = str(key)[:100]
            raise ProviderConfigError(
                f"unknown key {name!r}", remedy=nearest(name, known, "Known keys"), path=f"{path}.{name}"
            )


@cache
def _keys_of(kind: type[Struct]) -> tuple[str, ...]:
    """A kind's keys. To look them up evaluates its annotations, which takes longer than the rest here."""
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


def nearest(name: str, known: Sequence[str], label: str) -> str:
    """A remedy for a name that is not known: the nearest one, else all of them."""
    near = difflib.get_close_matches(name[:100], known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"{label}: {', '.join(known)}."
