"""What the house gives a provider while it mounts, and learns from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

from msgspec import Struct

from trio_agent.config.secret_forms import forms_of

from .contract import Provider
from .credentials import Credentials

logger = logging.getLogger(__name__)

EVENTS_CHANNEL = "observability.events"
"""Contributors of this channel return the names of the events that a provider emits."""

Observer: TypeAlias = Callable[[str, str, Mapping[str, Any]], None]
"""Called with provider id, event name and data, in the task that emitted; must return at once."""

_SECRET_WORDS = ("key", "token", "secret", "password", "authorization", "header")


class Contribution(Struct, frozen=True):
    """What contributor `name` gave when it was asked."""

    name: str
    value: Any


class MountCoordinator:
    """The house's side of `contract.Coordinator`, one for each provider that mounts.

    Args:
        provider_id: the provider's key in the configuration.
        resources: closed when the agent closes, or at once when this provider fails to boot.
        credentials: where `credential` looks.
        config: the provider's own configuration; only used to know which words are secret.
        observers: who hears what the provider emits. An observer that raises is logged and passed
            over: watching must not break a model call.
    """

    def __init__(
        self,
        provider_id: str,
        *,
        resources: AsyncExitStack,
        credentials: Credentials,
        config: Mapping[str, Any] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.provider_id = provider_id
        self.resources = resources
        self.provider: Provider | None = None
        self._credentials = credentials
        self._observers = tuple(observers)
        self._contributors: dict[str, dict[str, Callable[[], Any]]] = {}
        self._secrets = set(_secrets_in(config or {}))

    def credential(self, *names: str) -> str | None:
        """The first of `names` that has a secret, or `None`."""
        found = self._credentials.find(*names)
        if found is None:
            return None
        self._secrets.add(found.secret)
        return found.secret

    def register_provider(self, provider: Provider) -> None:
        """Declare the provider. Raises ValueError when another one was declared before."""
        if self.provider is not None and self.provider is not provider:
            raise ValueError("a mount can register only one provider; declare the other one under its own id")
        self.provider = provider

    def register_contributor(self, channel: str, name: str, contribute: Callable[[], Any]) -> None:
        """Add to a channel. Raises ValueError when `name` is taken in it."""
        contributors = self._contributors.setdefault(channel, {})
        if name in contributors:
            raise ValueError(f"channel {channel!r} already has a contributor {name!r}")
        contributors[name] = contribute

    def collect_contributions(self, channel: str) -> list[Contribution]:
        """Ask the contributors of a channel, in the order they registered; their exceptions pass."""
        return [Contribution(name, ask()) for name, ask in self._contributors.get(channel, {}).items()]

    def emit(self, event: str, data: Mapping[str, Any]) -> None:
        """Publish an event to the observers."""
        for observer in self._observers:
            try:
                observer(self.provider_id, event, data)
            except Exception as error:  # noqa: BLE001  (see `observers` above)
                logger.warning(
                    "an observer of provider %s failed on %s: %s",
                    self.provider_id,
                    event,
                    type(error).__name__,
                )

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets that this provider knows."""
        return frozenset(self._secrets)

    def redact(self, text: str) -> str:
        """`text` without the secrets that this provider knows, for messages made by foreign code."""
        forms = {form for secret in self._secrets for form in forms_of(secret)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        return text


def _secrets_in(value: object, *, secret: bool = False) -> list[str]:
    """Strings below keys that sound secret. Very short ones are left out: they would blank plain words."""
    match value:
        case str() if secret and len(value) >= 4:
            return [value]
        case Mapping():
            return [
                found
                for key, inner in value.items()
                for found in _secrets_in(
                    inner, secret=secret or any(word in str(key).lower() for word in _SECRET_WORDS)
                )
            ]
        case list() | tuple():
            return [found for inner in value for found in _secrets_in(inner, secret=secret)]
        case _:
            return []
