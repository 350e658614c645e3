"""What all checks go by: the home, the configuration, and the server that may run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from trio_agent.config.home import resolve_home
from trio_agent.config.load import Draft, load_draft
from trio_agent.config.problems import ConfigError
from trio_agent.config.schema import Config
from trio_agent.server.claim import Held, Unclaimed, look

from .finding import Finding, problem


class Premises(Struct, frozen=True, kw_only=True):
    """What is known before anything is looked at closely.

    `home` is `None` where nothing says where it is. `draft` is `None` where no configuration was named, and
    none is known from a server that runs; `config_path` says where it is from. `server` is `None` where the
    home cannot be looked into. `limit` is the seconds that one check may take.
    """

    env: Mapping[str, str]
    home: Path | None
    config_path: Path | None
    draft: Draft | None
    server: Held | Unclaimed | None
    bind: str
    port: int
    api_key: str | None
    workspace: str | None
    limit: float
    now: float

    @property
    def config(self) -> Config | None:
        return None if self.draft is None else self.draft.config

    @property
    def running(self) -> Held | None:
        """The server that runs under the home."""
        return self.server if isinstance(self.server, Held) else None

    def __repr__(self) -> str:
        return f"Premises(home={self.home}, config_path={self.config_path}, …)"


def find_premises(
    env: Mapping[str, str],
    *,
    config_path: Path | None,
    bind: str,
    port: int,
    workspace: str | None,
    limit: float,
    now: float,
) -> tuple[Premises, list[Finding]]:
    """Look where everything is. What cannot be known is a finding, and no obstacle.

    Without a path the configuration is that of the server which runs under the home.
    """
    findings: list[Finding] = []
    home: Path | None = None
    server: Held | Unclaimed | None = None
    try:
        home = resolve_home(env)
        server = look(home)
    except ConfigError as error:
        findings += [problem("home", each.message, each.remedy) for each in error.problems]
    except OSError as error:
        why = error.strerror or type(error).__name__
        findings.append(problem("server", f"{home} cannot be looked into: {why}", "mend its rights"))
    state = server.state if isinstance(server, Held) else None
    if config_path is None and state is not None and state.config is not None:
        config_path = Path(state.config)
    draft = None if config_path is None else load_draft(config_path, env)
    premises = Premises(
        env=env,
        home=home,
        config_path=config_path,
        draft=draft,
        server=server,
        bind=bind,
        port=port,
        api_key=env.get("TRIO_AGENT_API_KEY") or None,
        workspace=workspace,
        limit=limit,
        now=now,
    )
    return premises, findings
