"""The closed schema of `host_config.json`: what may be said, in which ranges, and what holds when it is not.

The structs are the one source: validation, error reports and the check of docs/configuration.md all read
them. Every key here is honoured by the program. Durations are seconds, sizes are bytes, money is a decimal
string in USD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr, replace

from trio_agent.statemachine.money import Price

from . import rules
from .problems import KeyPath

DAY = 86_400.0
YEAR = 31_536_000


Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=YEAR, extra={"unit": "seconds"})]
SecondsOrZero: TypeAlias = Annotated[float, Meta(ge=0, le=YEAR, extra={"unit": "seconds"})]
Usd: TypeAlias = Annotated[Decimal, Meta(extra={"unit": "USD"})]
Rows: TypeAlias = Annotated[int, Meta(ge=1, le=100_000_000)]
UsdPerToken: TypeAlias = Annotated[Decimal, Meta(extra={"unit": "USD per token"})]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
ProviderId: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(?!routing\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z",
        extra={"expected": "1 to 64 letters, digits, `_`, `.` or `-`, and not the reserved word `routing`"},
    ),
]
ToolName: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z", extra={"expected": "1 to 64 letters, digits, `_` or `-`"}),
]
ToolSource: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)\Z",
        extra={"expected": "an entry point's name or `package.module:function`"},
    ),
]
Origin: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rules.ORIGIN,
        extra={"expected": "an origin as browsers send it, such as `https://app.example.com`"},
    ),
]
Key: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x7e]+\Z",
        extra={"expected": "printable ASCII without spaces", "secret": True},
    ),
]


StoreUrl: TypeAlias = Annotated[str, Meta(extra={"rule": rules.store_url})]
Names: TypeAlias = Annotated[tuple[Name, ...], Meta(min_length=1, extra={"rule": rules.no_repeats})]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object of the configuration. A key that is not a field is an error."""


class ProviderConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `providers`.

    `module` is the entry point in the group `trio_agent.providers` that serves it; absent, it is the entry's
    own id, which a `Config` fills in. `config` is handed to the module as it is.
    """

    module: Annotated[str, Meta(min_length=1, max_length=256)] = ""
    config: dict[str, Any] = {}

    def __repr__(self) -> str:  # provider settings hold keys
        return f"ProviderConfig(module={self.module!r}, config=<{len(self.config)} keys>)"


class RunProvider(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`provider`: the one provider that `trio-agent run` uses."""

    module: Name
    config: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"RunProvider(module={self.module!r}, config=<{len(self.config)} keys>)"


class ServerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`server`: limits and manners of the HTTP side."""

    preflight_timeout: SecondsOrZero = rules.PREFLIGHT_TIMEOUT
    max_preflight_timeout: SecondsOrZero = rules.MAX_PREFLIGHT_TIMEOUT
    keepalive_interval: Seconds = 3.0
    turn_timeout: Seconds = 600.0
    host_tool_ttl: Seconds = 900.0
    session_wait: SecondsOrZero = 30.0
    in_stream_errors: Literal["event", "content", "both"] = "event"
    stream_default: bool = False
    max_request_bytes: Annotated[int, Meta(ge=1, le=1 << 30, extra={"unit": "bytes"})] = (
        rules.MAX_REQUEST_BYTES
    )
    max_body_bytes_in_flight: Annotated[int, Meta(ge=1, le=1 << 40, extra={"unit": "bytes"})] = (
        rules.MAX_BODY_BYTES_IN_FLIGHT
    )
    max_history_bytes: Annotated[int, Meta(ge=1, le=1 << 30, extra={"unit": "bytes"})] = 32 << 20
    max_header_bytes: Annotated[int, Meta(ge=256, le=1 << 20, extra={"unit": "bytes"})] = 65536
    max_depth: Annotated[int, Meta(ge=1, le=256)] = 64
    max_parts: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    max_concurrent_turns: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    max_queued_turns: Annotated[int, Meta(ge=0, le=10_000)] = 100
    queue_timeout: SecondsOrZero = 5.0
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 2048
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 60.0
    idle_timeout: Seconds = 75.0
    websocket_idle_timeout: Seconds = 900.0
    write_timeout: Seconds = 30.0
    shutdown_grace: SecondsOrZero = 10.0
    cors_origins: Annotated[tuple[Origin, ...], Meta(extra={"rule": rules.origins})] = ()
    trusted_proxies: Annotated[tuple[str, ...], Meta(extra={"rule": rules.networks})] = ()
    shutdown_delay: SecondsOrZero = 0.0
    api_key: Key | None = None

    def __repr__(self) -> str:
        return f"ServerConfig(api_key={'None' if self.api_key is None else '<hidden>'}, …)"


class AgentConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`agent`: what every turn gets."""

    system_prompt: str | None = None
    max_model_calls: Annotated[int, Meta(ge=1, le=10_000)] = 24
    max_cost_usd: Usd | None = None
    max_answer_chars: Annotated[int, Meta(ge=1000, le=1_000_000_000)] = 8_000_000
    tool_timeout: Seconds = 60.0
    tools: Annotated[tuple[ToolSource, ...], Meta(extra={"rule": rules.no_repeats})] = ()


class HostTool(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that the caller runs, offered to the model in every turn. `parameters` is a JSON Schema."""

    name: ToolName
    description: str | None = None
    parameters: Annotated[dict[str, Any], Meta(extra={"rule": rules.tool_parameters})] | None = None


class RoutingConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`routing`: `aliases` maps a name to a model, `roles` a role to its candidates in order."""

    aliases: dict[Name, Name] = {}
    roles: dict[Name, Names] = {}


class ModelPrice(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `prices`, in USD per token. A class without its own price costs what its parent costs."""

    input: UsdPerToken
    output: UsdPerToken
    cached_input: UsdPerToken | None = None
    cache_write: UsdPerToken | None = None
    cache_write_1h: UsdPerToken | None = None
    reasoning: UsdPerToken | None = None

    def price(self) -> Price:
        """The same, as the turn machine counts."""
        return Price(
            input=self.input,
            output=self.output,
            cached_input=self.cached_input,
            cache_write=self.cache_write,
            cache_write_1h=self.cache_write_1h,
            reasoning=self.reasoning,
        )


class RetentionConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`store.retention`: how long what lies beside turns is kept after it was used last."""

    responses: Seconds = 30 * DAY
    sessions: Seconds = 30 * DAY
    events: Seconds = 7 * DAY


class StoreConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`store`: where turns are kept, and how much beside them. Without `url` it is the home's database."""

    url: StoreUrl | None = None
    retention: RetentionConfig = RetentionConfig()
    max_responses: Rows = 100_000
    max_conversations: Rows = 10_000
    max_sessions: Rows = 10_000

    @property
    def path(self) -> Path | None:
        """The SQLite file that `url` names; None means the home's own."""
        if self.url is None:
            return None
        return Path(re.sub("^/+", "/", unquote(urlsplit(self.url).path)))


class ConfigFile(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The top level of `host_config.json`. `schema_url` is for editors alone."""

    providers: dict[ProviderId, ProviderConfig] = {}
    provider: RunProvider | None = None
    server: Annotated[ServerConfig, Meta(extra={"rule": rules.server_bounds})] = ServerConfig()
    agent: AgentConfig = AgentConfig()
    host_tools: Annotated[tuple[HostTool, ...], Meta(extra={"rule": rules.no_repeated_names})] = ()
    routing: RoutingConfig = RoutingConfig()
    prices: dict[Name, ModelPrice] = {}
    store: StoreConfig = StoreConfig()
    schema_url: str | None = field(default=None, name="$schema")


class Config(ConfigFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration that was found to be right.

    `substituted` maps each place whose text came from `${NAME}` to the text as it was written, so that a
    report can show the reference and never the value. It is no key of the file.
    """

    substituted: Mapping[KeyPath, str] = {}

    def __post_init__(self) -> None:
        named = {
            id_: provider if provider.module else replace(provider, module=id_)
            for id_, provider in self.providers.items()
        }
        force_setattr(self, "providers", named)

    def __repr__(self) -> str:  # a struct's own would print keys and prompts into logs
        return f"Config(providers={sorted(self.providers)})"
