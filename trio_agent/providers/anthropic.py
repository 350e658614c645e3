"""The provider `anthropic`: Anthropic's Messages API, or any server that speaks it.

Config keys are those that all shipped modules share (`settings.ProviderSettings`). The key is taken from
`api_key`, `ANTHROPIC_API_KEY` (both sent as `x-api-key`) or `ANTHROPIC_AUTH_TOKEN` (sent as a bearer token,
as the vendor's SDK does), the address from `base_url`, `ANTHROPIC_BASE_URL` or the vendor's own. The
address stands before `/v1`; one that ends with `/v1` is taken as well.

The API version is 2023-06-01, since the one after it has no sampling parameters at all; `headers` may
set another `anthropic-version`, and `anthropic-beta` values. Those that a Messages client sent come after
them: fields of its request may need them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import msgspec
import trio

from trio_agent.errors import AgentError
from trio_agent.providers.answer_decoder import decoded
from trio_agent.providers.anthropic_decode import MessagesDecoder
from trio_agent.providers.anthropic_encode import build_count_request, build_request
from trio_agent.providers.anthropic_models import Traits, capabilities_of, describe, family, model_info
from trio_agent.providers.contract import (
    CAPABILITIES,
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
from trio_agent.providers.http import JSON_TIMEOUT, UpstreamHttp
from trio_agent.providers.settings import ProviderSettings, parse_settings
from trio_agent.providers.upstream_client import upstream_http
from trio_agent.statemachine.events import CallEvent
from trio_agent.wire.messages import ListedModel, decode_count, decode_model_page

BASE_URL: Final = "https://api.anthropic.com"
API_VERSION: Final = "2023-06-01"
KEY_VARIABLE: Final = "ANTHROPIC_API_KEY"
TOKEN_VARIABLE: Final = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105  (the name of a variable)
BASE_URL_VARIABLE: Final = "ANTHROPIC_BASE_URL"

_BETA: Final = "anthropic-beta"
_NO_SUCH_PATH: Final = frozenset({404, 405, 501})
_PAGE_SIZE = 1000  # the most that the API gives at once
_MAX_PAGES = 20


class AnthropicProvider(Provider):
    """One account of one server that speaks Messages. `mount` builds it.

    Args:
        name: the provider's id in the configuration.
        http: a client whose base URL stands before `/v1`; whoever made it closes it.
        base_url: the address, for `get_info`.
        limits: the limits of a call.
        models: the models that the operator named; without them the upstream is asked.
        betas: the operator's own `anthropic-beta` values, for every call.
    """

    def __init__(
        self,
        name: str,
        http: UpstreamHttp,
        *,
        base_url: str,
        limits: CallLimits,
        models: list[ModelInfo] | None = None,
        betas: str = "",
    ) -> None:
        self.name = name
        self.limits = limits
        self._betas = betas
        self._http = http
        self._base_url = base_url
        self._models = None if models is None else [_completed(model) for model in models]
        self._traits: dict[str, Traits] = {model.id: _traits_of(model) for model in models or ()}

    def tidy(self) -> None:
        self._http.close_idle()

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(
            id=self.name,
            display_name="Anthropic",
            wire="messages",
            base_url=self._base_url,
            credential_env_vars=(KEY_VARIABLE, TOKEN_VARIABLE),
            capabilities=CAPABILITIES,
        )

    async def list_models(self) -> list[ModelInfo]:
        """The models that the operator named, else those of `GET /v1/models`, page by page.

        What the listing says of a model's abilities is kept, and used to encode calls from then on.

        Raises:
            UpstreamError: the upstream could not be asked, or its answer is no list of models.
        """
        if self._models is not None:
            return list(self._models)
        listed = await self._list_upstream()
        self._traits = {model.id: describe(model) for model in listed.values()}
        return [model_info(model) for model in listed.values()]

    async def _list_upstream(self) -> dict[str, ListedModel]:
        found: dict[str, ListedModel] = {}
        params = {"limit": str(_PAGE_SIZE)}
        for _ in range(_MAX_PAGES):
            raw = await self._http.get_json("/v1/models", params=params)
            try:
                page = decode_model_page(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._http.error("malformed", f"sent a broken list of models: {error}") from None
            found |= {model.id: model for model in page.data if model.id}
            if not page.has_more or not page.last_id or page.last_id == params.get("after_id"):
                return found
            params["after_id"] = page.last_id
        raise self._http.error("malformed", f"lists models without end ({_MAX_PAGES} pages of them)")

    def check(self, request: ProviderRequest) -> None:
        """Refuse what the wire or the model cannot carry; see `anthropic_options` and `anthropic_encode`.

        Raises:
            AgentError: a 400 whose `param` names the option or the part.
        """
        build_request(request, self._traits_for(request.model), self.name)

    # Not `async`: a call of it gives the generator itself.
    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        """The answer as it comes. Raises UpstreamError; see `decoded`."""
        try:
            body = build_request(request, self._traits_for(request.model), self.name)
        except AgentError as error:
            # `check` has passed before the turn; what fails here came up within it, as a tool's result may.
            raise UpstreamError("rejected", error.message, code=error.code) from None
        reads = self._http.stream("/v1/messages", msgspec.json.encode(body), headers=self._headers(request))
        return decoded(reads, MessagesDecoder(self._http))

    def _headers(self, request: ProviderRequest) -> dict[str, str]:
        """The headers of one call besides those of every call: the client's beta values behind our own."""
        if not request.options.betas:
            return {}
        return {_BETA: ",".join([*([self._betas] if self._betas else []), *request.options.betas])}

    async def count_tokens(self, request: ProviderRequest) -> int | None:
        """The vendor's own count of the prompt; `None` from a server that speaks Messages and does not count.

        Raises:
            UpstreamError: the upstream refused the request, could not be asked, or its answer is no count.
            AgentError: as `check`.
        """
        body = build_count_request(request, self._traits_for(request.model), self.name)
        headers = {"Accept": "application/json", **self._headers(request)}
        reads = self._http.stream("/v1/messages/count_tokens", msgspec.json.encode(body), headers=headers)
        with trio.move_on_after(JSON_TIMEOUT):
            try:
                async with aclosing(reads):
                    answers = [each.data async for batch in reads for each in batch]
                return decode_count(b"".join(answers)).input_tokens
            except UpstreamError as error:
                if error.failure.status in _NO_SUCH_PATH:
                    return None
                raise
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._http.error("malformed", f"answered with no count of tokens: {error}") from None
        raise self._http.error("stalled", f"did not count the tokens within {JSON_TIMEOUT:g} seconds")

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        """The whole answer, read as a stream: long answers without one run into the vendor's time limits.

        Raises:
            UpstreamError: as `stream` does.
        """
        return await fold_stream(self.stream(request))

    def _traits_for(self, model: str) -> Traits:
        return self._traits.get(model) or family(model)


def _traits_of(model: ModelInfo) -> Traits:
    """The table's traits under the limits that the operator gave."""
    known = family(model.id)
    return msgspec.structs.replace(
        known,
        context_window=model.context_window or known.context_window,
        max_output_tokens=model.max_output_tokens or known.max_output_tokens,
    )


def _completed(model: ModelInfo) -> ModelInfo:
    traits = _traits_of(model)
    return msgspec.structs.replace(
        model,
        context_window=traits.context_window,
        max_output_tokens=traits.max_output_tokens,
        capabilities=model.capabilities or capabilities_of(traits),
    )


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
    """Build the provider from its configuration; no request is made.

    Raises:
        ProviderConfigError: a key is unknown or has a wrong value, or there are no credentials.
    """
    settings = parse_settings(config, ProviderSettings)
    base_url = settings.base_url or coordinator.credential(BASE_URL_VARIABLE) or BASE_URL
    base_url = base_url.rstrip("/").removesuffix("/v1")
    auth, secret = _auth(coordinator, settings)
    http = upstream_http(
        settings, base_url=base_url, auth={"anthropic-version": API_VERSION, **auth}, api_key=secret
    )
    await coordinator.resources.enter_async_context(http)
    return AnthropicProvider(
        coordinator.provider_id,
        http,
        base_url=base_url,
        limits=settings.limits(),
        models=settings.listed_models(),
        betas=next((value for name, value in settings.headers.items() if name.lower() == _BETA), ""),
    )


def _auth(coordinator: Coordinator, settings: ProviderSettings) -> tuple[dict[str, str], str | None]:
    """The headers that carry the credentials, and the secret in them."""
    if {"x-api-key", "authorization"} & {name.lower() for name in settings.headers}:
        return {}, None
    if key := (settings.api_key or "").strip() or coordinator.credential(KEY_VARIABLE):
        return {"x-api-key": key}, key
    if token := coordinator.credential(TOKEN_VARIABLE):
        return {"authorization": f"Bearer {token}"}, token
    raise ProviderConfigError(
        f"no API key: {KEY_VARIABLE} is not set",
        remedy=f"Set {KEY_VARIABLE}, keep it with `trio-agent auth set {KEY_VARIABLE}`, "
        "or give config.api_key.",
        path="config.api_key",
    )
