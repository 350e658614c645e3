"""The home: the folder that holds credentials, state and the embedded database."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from .problems import ConfigError, ConfigProblem, quote

_VARIABLE = "TRIO_AGENT_HOME"
_DATABASE = "store.sqlite3"
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def resolve_home(env: Mapping[str, str]) -> Path:
    """Where the home is, as an absolute path: `TRIO_AGENT_HOME`, else `~/.trio-agent`. Touches no file.

    Raises:
        ConfigError: `config_home_unusable`, when neither says where.
    """
    said = env.get(_VARIABLE, "") or "~/.trio-agent"
    if "\0" in said:
        raise _unusable("the path holds a NUL byte", "give another path")
    if said == "~" or said.startswith("~/"):
        user = env.get("HOME")
        if not user:
            raise _unusable("HOME is not set, so `~` has no meaning", f"set {_VARIABLE} to an absolute path")
        said = user + said[1:]
    return Path(said).absolute()


def ensure_home(home: Path) -> Path:
    """Make the home if it is not there, for its owner alone (mode 0700), and return it.

    An existing folder that others can enter is closed to them if it is empty, and refused if it is not:
    it may be something else than a home.

    Raises:
        ConfigError: `config_home_unusable`, with what to do.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
        if os.geteuid() not in (0, status.st_uid):
            raise _unusable(f"{home} belongs to another user", f"set {_VARIABLE} to a folder of your own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            if any(entry.name != "lost+found" for entry in home.iterdir()):
                mode = stat.S_IMODE(status.st_mode)
                raise _unusable(
                    f"{home} is open to others (mode {mode:04o})",
                    f"if this is the right folder, run: chmod 700 {shlex.quote(str(home))}",
                )
            home.chmod(0o700)
        if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(f"{home} cannot be written to", f"make it writable, or set {_VARIABLE}")
    except (FileExistsError, NotADirectoryError):
        raise _unusable(f"{home} is not a folder", f"remove what is there, or set {_VARIABLE}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise _unusable(
            f"{home} cannot be made ready: {why}", f"set {_VARIABLE} to a folder that you can write to"
        ) from None
    return home


def database_path(home: Path, workspace: str | None = None) -> Path:
    """Where the embedded database of a workspace lies in the home, or the one without a workspace.

    Raises:
        ConfigError: `config_invalid_value`, where that is no name of a workspace.
    """
    if workspace is None:
        return home / _DATABASE
    if not _WORKSPACE.fullmatch(workspace):
        message = f"{quote(workspace)} cannot be the name of a workspace"
        expected = "1 to 63 small letters, digits and `-`, a letter or a digit first"
        remedy = "give another name with --workspace (TRIO_AGENT_WORKSPACE)"
        problem = ConfigProblem("config_invalid_value", "--workspace", message, expected, remedy=remedy)
        raise ConfigError([problem])
    return home / "workspaces" / workspace / _DATABASE


def choose_database(configured: Path | None, home: Path | None, workspace: str | None = None) -> Path:
    """The database that `store.url` names, else the one that `database_path` has.

    Args:
        configured: what `store.url` names, if anything.
        home: may be left out where something is configured.

    Raises:
        ConfigError: `config_invalid_value`: that is no name of a workspace, or both name a database.
    """
    in_home = database_path(home or Path(), workspace)
    if configured is None:
        return in_home
    if workspace is None:
        return configured
    problem = ConfigProblem(
        "config_invalid_value",
        "store.url",
        f"the workspace {quote(workspace)} has a database of its own in the home, and this names another one",
        "one of the two",
        remedy="leave out store.url (of a command that looks at records: --config), or --workspace "
        "(TRIO_AGENT_WORKSPACE)",
    )
    raise ConfigError([problem])


def _unusable(message: str, remedy: str) -> ConfigError:
    expected = "a folder that belongs to this user alone"
    return ConfigError([ConfigProblem("config_home_unusable", _VARIABLE, message, expected, remedy=remedy)])
