"""The HTTP client of a provider, made from its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trio_agent.providers.contract import ProviderConfigError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.providers.settings import ProviderSettings

_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_SCHEME: Final = re.compile(r"(?i)(?:bearer|basic|token) ")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")  # RFC 9110, 5.5


def upstream_http(
    settings: ProviderSettings, *, base_url: str, auth: Mapping[str, str], api_key: str | None
) -> UpstreamHttp:
    """The HTTP client for these settings.

    Args:
        settings: gives the operator's headers, which win over `auth`, and the limits.
        base_url: the address to use.
        auth: the headers that carry the key.
        api_key: kept out of all messages, as is every header value that sounds secret.

    Raises:
        ProviderConfigError: the address, the key or a header cannot be used.
    """
    for name, value in settings.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ProviderConfigError(
                f"header {name[:60]!r} cannot be sent",
                remedy="Header names are tokens, values are printable ASCII on one line.",
                path="config.headers",
            )
    if any(not _HEADER_VALUE.fullmatch(value) for value in auth.values()):
        raise ProviderConfigError(
            "the API key holds characters that no HTTP header can carry",
            remedy="Copy the key again, without line ends or typographic characters.",
            path="config.api_key",
        )
    own = {name.lower() for name in settings.headers}
    headers = {name: value for name, value in auth.items() if name.lower() not in own} | settings.headers
    secrets = [
        value
        for name, value in settings.headers.items()
        if _SECRET_HEADER.search(name) or _SCHEME.match(value)
    ]
    try:
        return UpstreamHttp(
            HttpSettings(
                base_url=base_url,
                headers=headers,
                connect_timeout=settings.connect_timeout,
                max_connections=settings.max_connections,
            ),
            secrets=(*secrets, *([api_key] if api_key else [])),
        )
    except ValueError as error:
        raise ProviderConfigError(
            f"base_url: {error}",
            remedy="Give the address up to and including the version, such as https://api.example.com/v1.",
            path="config.base_url",
        ) from None
