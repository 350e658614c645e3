"""The provider for everything that speaks Chat Completions, and how it is mounted.

Some vendors have the Responses API beside it, which some models need: the wire is then chosen by model, or
set by the configuration. Vendors differ by address, names of variables and `Quirks`; that is a `Preset`. The
presets of known vendors are in `presets.py`; this module's own `mount` is the one for any other server.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.providers import openai_encode
from trio_agent.providers.answer_decoder import decoded
from trio_agent.providers.contract import (
    CallLimits,
    Coordinator,
    ModelInfo,
    Provider,
    ProviderConfigError,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.folding import fold_stream
from trio_agent.providers.http import UpstreamHttp
from trio_agent.providers.openai_decode import ChatDecoder
from trio_agent.providers.openai_models import models_of
from trio_agent.providers.openai_quirks import Quirks
from trio_agent.providers.openai_responses import ResponsesWire
from trio_agent.providers.openai_responses_models import needs_responses
from trio_agent.providers.settings import ProviderSettings, TwoWireSettings, parse_settings
from trio_agent.providers.upstream_client import upstream_http
from trio_agent.statemachine.events import CallEvent


class Preset(Struct, frozen=True, kw_only=True):
    """A vendor.

    Attributes:
        name: the module's name.
        display_name: the vendor's name.
        base_url: the address where no other is given; absent where each customer has one.
        key_names: variables that may hold the key, the first one being the one to recommend.
        key_required: whether there is no call without a key.
        key_header: the header that carries the key; `Authorization` carries it as a bearer token.
        url_names: variables that the vendor's own tools take the address from.
        url_from: makes the address out of such a variable's value.
        lists_models: whether the server can list what may be called; else `models` must be configured.
        only_chat: whether the listing is to be cleared of what plainly does not chat.
        strip: a prefix that the listing puts before model ids.
        responses: whether there is the Responses API, too.
        quirks: the server's ways.
    """

    name: str
    display_name: str
    base_url: str | None = None
    key_names: tuple[str, ...] = ()
    key_required: bool = True
    key_header: str = "Authorization"
    url_names: tuple[str, ...] = ()
    url_from: Callable[[str], str] = str
    lists_models: bool = True
    only_chat: bool = False
    strip: str = ""
    responses: bool = False
    quirks: Quirks = Quirks()


CHAT_COMPLETIONS = Preset(
    name="chat-completions",
    display_name="Chat Completions",
    key_required=False,
    # DeepSeek's and Moonshot's thinking models refuse a history whose tool calls lack it.
    quirks=Quirks(reasoning_back="reasoning_content"),
)


def call_ids(nonce: str) -> Callable[[], str]:
    """Makes tool-call ids in OpenAI's form: random ones, or those that follow from a nonce."""
    if not nonce:
        return lambda: f"call_{secrets.token_hex(12)}"
    count = itertools.count()
    return lambda: f"call_{hashlib.sha256(f'{nonce}/{next(count)}'.encode()).hexdigest()[:24]}"


class OpenAICompatible(Provider):
    """A server that speaks Chat Completions, or that and Responses.

    Args:
        name: the provider's id in the configuration.
        preset: the vendor.
        http: its HTTP client, open as long as the provider is used.
        base_url: what the client calls, for `get_info`.
        limits: the limits of a call.
        models: the models that the operator named; `None` asks the server.
        responses: the Responses wire, where the vendor has it and the operator lets it be used.
        only_responses: whether every model is called over it; else those that need it are.
    """

    def __init__(
        self,
        name: str,
        preset: Preset,
        http: UpstreamHttp,
        *,
        base_url: str,
        limits: CallLimits,
        models: Sequence[ModelInfo] | None = None,
        responses: ResponsesWire | None = None,
        only_responses: bool = False,
    ) -> None:
        self.name = name
        self.limits = limits
        self._preset = preset
        self._http = http
        self._base_url = base_url
        self._responses = responses
        self._only_responses = only_responses
        self._models = None if models is None else [self._told_wire(model) for model in models]

    def tidy(self) -> None:
        self._http.close_idle()

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(
            id=self.name,
            display_name=self._preset.display_name,
            wire="responses" if self._only_responses else "chat",
            base_url=self._base_url,
            credential_env_vars=self._preset.key_names,
            capabilities=("streaming", "tools"),
        )

    async def list_models(self) -> list[ModelInfo]:
        """The configured models, or those of `GET /models`. Raises UpstreamError."""
        if self._models is not None:
            return list(self._models)
        body = await self._http.get_json("/models")
        try:
            listed = models_of(body, only_chat=self._preset.only_chat, strip=self._preset.strip)
        except msgspec.DecodeError:
            raise self._http.error(
                "malformed", "answered GET /models with something that is no listing"
            ) from None
        return [self._told_wire(model) for model in listed]

    def _responses_for(self, model: str) -> ResponsesWire | None:
        return self._responses if self._only_responses or needs_responses(model) else None

    def _told_wire(self, model: ModelInfo) -> ModelInfo:
        if self._only_responses or self._responses_for(model.id) is None:
            return model
        return msgspec.structs.replace(model, wire="responses")

    def check(self, request: ProviderRequest) -> None:
        """Refuse what the wire of the model cannot carry. Raises AgentError."""
        responses = self._responses_for(request.model)
        if responses is not None:
            responses.check(request)
            return
        openai_encode.check(request, self.name, self._preset.quirks)

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        """One whole answer, read as a stream. Raises UpstreamError."""
        return await fold_stream(self.stream(request))

    # Not `async`: a call of it gives the generator itself.
    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        """The answer as it comes. Raises UpstreamError, from the generator; see `decoded`."""
        responses = self._responses_for(request.model)
        if responses is not None:
            return responses.stream(request)
        quirks = self._preset.quirks
        taken = {call.id for message in request.messages for call in message.tool_calls}
        decoder = ChatDecoder(self._http, quirks, call_ids(request.nonce), taken)
        try:
            # `check` has passed before the turn, but not on what a server-side tool returned since.
            openai_encode.check(request, self.name, quirks)
        except AgentError as error:
            raise UpstreamError("rejected", error.message, code=error.code) from None
        body = openai_encode.encode(request, quirks)
        return decoded(self._http.stream("/chat/completions", body), decoder)


async def mount_preset(
    preset: Preset, coordinator: Coordinator, config: Mapping[str, Any]
) -> OpenAICompatible:
    """Build the provider for a vendor from its configuration.

    Raises:
        ProviderConfigError: a key is unknown or wrong, or the key, address or models are missing.
    """
    settings = parse_settings(config, TwoWireSettings if preset.responses else ProviderSettings)
    base_url = settings.base_url or _base_url_of(preset, coordinator)
    api_key = settings.api_key.strip() if settings.api_key is not None else None
    if api_key is None and preset.key_names:
        api_key = coordinator.credential(*preset.key_names)
    own_auth = any(name.lower() == preset.key_header.lower() for name in settings.headers)
    if not api_key and preset.key_required and not own_auth:
        name = preset.key_names[0]
        raise ProviderConfigError(
            f"{preset.display_name} needs an API key, and {name} is not set",
            remedy=f"Set {name}, keep it with `trio-agent auth set {name}`, or give config.api_key.",
            path="config.api_key",
        )
    if settings.models is None and not preset.lists_models:
        raise ProviderConfigError(
            f"{preset.display_name} cannot list what may be called",
            remedy="Name your deployments in config.models.",
            path="config.models",
        )
    http = upstream_http(settings, base_url=base_url, auth=_auth(preset, api_key), api_key=api_key)
    await coordinator.resources.enter_async_context(http)
    models, responses = settings.listed_models(), None
    if isinstance(settings, TwoWireSettings) and settings.wire != "chat":
        responses = ResponsesWire(
            coordinator.provider_id,
            http,
            call_ids=call_ids,
            summary=settings.reasoning_summary,
            models=models or (),
        )
    return OpenAICompatible(
        coordinator.provider_id,
        preset,
        http,
        base_url=base_url,
        limits=settings.limits(),
        models=models,
        responses=responses,
        only_responses=isinstance(settings, TwoWireSettings) and settings.wire == "responses",
    )


def _auth(preset: Preset, api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    bearer = preset.key_header == "Authorization"
    return {preset.key_header: f"Bearer {api_key}" if bearer else api_key}


def _base_url_of(preset: Preset, coordinator: Coordinator) -> str:
    value = coordinator.credential(*preset.url_names) if preset.url_names else None
    if value:
        return preset.url_from(value)
    if preset.base_url is None:
        variable = f", or set {preset.url_names[0]}" if preset.url_names else ""
        raise ProviderConfigError(
            f"{preset.display_name} has no address of its own",
            remedy=f"Give config.base_url, such as {_EXAMPLES.get(preset.name, _EXAMPLE)}{variable}.",
            path="config.base_url",
        )
    return preset.base_url


_EXAMPLE = "http://127.0.0.1:8000/v1"
_EXAMPLES = {"azure-openai": "https://{resource}.openai.azure.com/openai/v1"}


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> OpenAICompatible:
    """Mount any server that speaks Chat Completions; `base_url` is required. Raises ProviderConfigError."""
    return await mount_preset(CHAT_COMPLETIONS, coordinator, config)
