"""Where each provider's key comes from, as its module will find it. It looks; it never shows a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from .credentials import Credentials, Found
from .key_names import KEY_USES, KeyUse

Origin: TypeAlias = Literal["environment", "file", "config", "none", "unknown"]


class CredentialSource(Struct, frozen=True, kw_only=True):
    """Where one provider's key comes from.

    Attributes:
        provider: its id in the configuration, or the module's name where there is no configuration.
        module: what serves it.
        source: `none` where there is no key, `unknown` for a module that does not ship with this program.
        name: the variable or the key of the configuration that gives it; empty where there is none.
        required: whether the module refuses to start without a key.
        variables: the names that it looks up, the one to recommend first.
    """

    provider: str
    module: str
    source: Origin
    name: str = ""
    required: bool = False
    variables: tuple[str, ...] = ()

    @property
    def lacking(self) -> bool:
        """Whether the provider cannot start for want of a key."""
        return self.required and self.source == "none"


def source_of(
    provider: str, module: str, config: Mapping[str, Any], credentials: Credentials
) -> CredentialSource:
    """Where the provider's key comes from.

    Args:
        provider: its id.
        module: the module that serves it.
        config: the provider's own settings.
        credentials: the environment and the file.
    """
    use = KEY_USES.get(module)
    if use is None:
        return CredentialSource(provider=provider, module=module, source="unknown")
    source, name = _origin(use, config, credentials)
    return CredentialSource(
        provider=provider,
        module=module,
        source=source,
        name=name,
        required=use.required,
        variables=use.variables,
    )


def _origin(use: KeyUse, config: Mapping[str, Any], credentials: Credentials) -> tuple[Origin, str]:
    headers = config.get("headers")
    if isinstance(headers, Mapping) and any(str(name).lower() in use.headers for name in headers):
        return "config", "config.headers"
    given = config.get("api_key")
    if isinstance(given, str) and given.strip():
        return "config", "config.api_key"
    if given is not None and not use.blank_is_none:
        return "none", ""
    found = find_key(use, credentials)
    return ("none", "") if found is None else (found.source, found.name)


def find_key(use: KeyUse, credentials: Credentials) -> Found | None:
    """What the module finds under its variables, in its own order."""
    if not use.one_by_one:
        return credentials.find(*use.variables)
    return next((found for name in use.variables if (found := credentials.find(name))), None)
