"""The configuration as it may be shown: everything that holds, and no secret."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from .problems import KeyPath
from .schema import Config, ConfigFile

MASK: Final = "********"
_SECRET_WORDS: Final = frozenset(
    {"apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key"}
    | {"passphrase", "passwd", "password", "pwd", "secret", "secrets", "sig", "signature", "token"}
)
_FREE: Final = ("providers", "provider", "store")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONE_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_LEADING_USERINFO = re.compile(r"(?:(?<=://)|(?<=^//))[^/?#\s]*@")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]*)")
_SCHEME = re.compile(r"(?i)\b(bearer|basic)\s+\S+")


def masked(config: Config) -> dict[str, Any]:
    """All keys with their values in effect, as JSON values, secrets masked.

    Masked are, in the free-form settings of providers, whatever stands under a key that sounds like a secret,
    every header's value, `Bearer …` texts and credentials inside URLs; `server.api_key`; and everywhere text
    that came from the environment, which shows as the reference that was written.
    """
    names = zip(ConfigFile.__struct_fields__, ConfigFile.__struct_encode_fields__, strict=True)
    plain = {key: getattr(config, name) for name, key in names if name != "schema_url" or config.schema_url}
    return {
        name: _shown(msgspec.to_builtins(value), (name,), config, secret=False)
        for name, value in plain.items()
    }


def bare_url(url: str) -> str:
    """A URL without credentials: no user, no password, no value in its query whose name sounds secret.

    What is left can still be called, so that the same exchange comes of it in a replay.
    """
    bare = _LEADING_USERINFO.sub("", url)
    return _QUERY_VALUE.sub(lambda pair: f"{pair[1]}=" if _sounds_secret(pair[1]) else pair[0], bare)


def secrets_in_urls(value: Any) -> list[str]:
    """The credentials in the URLs of a JSON value, that is what `bare_url` leaves out, also unquoted."""
    if isinstance(value, dict):
        return [found for each in value.values() for found in secrets_in_urls(each)]
    if isinstance(value, (list, tuple)):
        return [found for each in value for found in secrets_in_urls(each)]
    if not isinstance(value, str) or "://" not in value:
        return []
    written = [each[:-1].rpartition(":")[2] for each in _USERINFO.findall(value)]
    written += [secret for name, secret in _QUERY_VALUE.findall(value) if _sounds_secret(name)]
    return [each for text in written for each in dict.fromkeys((text, unquote(text))) if each]


def harmless_settings(config: Config, provider_id: str) -> dict[str, Any]:
    """A provider's own settings without what is masked elsewhere, and without what the environment said.

    URLs stand without their credentials.
    """
    path: KeyPath = ("providers", provider_id, "config")
    kept: dict[str, Any] = _harmless(config.providers[provider_id].config, path, config)
    return kept


def _harmless(value: Any, path: KeyPath, config: Config) -> Any:
    if isinstance(value, dict):
        return {
            key: _harmless(item, (*path, key), config)
            for key, item in value.items()
            if not _names_a_secret((*path, key)) and (*path, key) not in config.substituted
        }
    if isinstance(value, (list, tuple)):
        return [
            _harmless(item, (*path, index), config)
            for index, item in enumerate(value)
            if (*path, index) not in config.substituted
        ]
    if isinstance(value, str):
        return _SCHEME.sub(rf"\1 {MASK}", bare_url(value) if "://" in value else value)
    return value


def _shown(value: Any, path: KeyPath, config: Config, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: _shown(item, (*path, key), config, secret=secret or _names_a_secret((*path, key)))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_shown(item, (*path, index), config, secret=secret) for index, item in enumerate(value)]
    written = config.substituted.get(path)
    if written is not None and (not secret or _LONE_REFERENCE.fullmatch(written)):
        value = written
    elif secret and value is not None:
        return MASK
    return _without_credentials(value) if isinstance(value, str) and path[0] in _FREE else value


def _names_a_secret(path: KeyPath) -> bool:
    """Whether the last key of the path names a secret, or its values are headers.

    Only where keys are not ours: everywhere else the schema knows what is secret.
    """
    if path == ("server", "api_key"):
        return True
    free = (path[0] == "providers" and len(path) > 3) or (path[0] == "provider" and len(path) > 2)
    return free and (_sounds_secret(str(path[-1])) or _words(str(path[-1]))[-1:] == ["headers"])


def _sounds_secret(key: str) -> bool:
    return not _SECRET_WORDS.isdisjoint(_words(key))


def _words(key: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(key)]


def _without_credentials(text: str) -> str:
    if "://" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
        text = _QUERY_VALUE.sub(
            lambda pair: f"{pair[1]}={MASK}" if _sounds_secret(pair[1]) else pair[0], text
        )
    return _SCHEME.sub(rf"\1 {MASK}", text)
