"""Configuration: the schema as structs, loading, and reports of everything that is wrong."""

from .binding import check_binding, is_loopback
from .home import ensure_home, resolve_home
from .load import load_config, parse_config
from .mask import masked
from .problems import ConfigError, ConfigProblem, render_problems
from .schema import (
    AgentConfig,
    Config,
    HostTool,
    ModelPrice,
    ProviderConfig,
    RetentionConfig,
    RoutingConfig,
    RunProvider,
    ServerConfig,
    StoreConfig,
)

__all__ = [
    "AgentConfig",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "HostTool",
    "ModelPrice",
    "ProviderConfig",
    "RoutingConfig",
    "RetentionConfig",
    "RunProvider",
    "ServerConfig",
    "StoreConfig",
    "check_binding",
    "ensure_home",
    "is_loopback",
    "load_config",
    "masked",
    "parse_config",
    "render_problems",
    "resolve_home",
]
