"""Finding the mount function that a configuration names."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from .contract import Mount

T = TypeVar("T")

ENTRY_POINT_GROUP = "trio_agent.providers"
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")


class ProviderModuleError(Exception):
    """A provider module cannot be used. `missing` tells one that does not exist from one that is broken."""

    def __init__(self, message: str, *, remedy: str, missing: bool) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.missing = missing


def installed_modules() -> dict[str, str]:
    """The provider modules that installed distributions declare: name to `package.module:function`."""
    return dict(_declared_in(tuple((folder, _changed_at(folder)) for folder in sys.path)))


@lru_cache(maxsize=1)
def _declared_in(folders: tuple[tuple[str, int], ...]) -> Mapping[str, str]:
    """What the distributions in `sys.path`, as it was at these times, declare.

    Each distribution's files are read for it, which was a quarter of an agent's start. To install one changes
    the time of its folder, so a program that installs and starts again sees what is new.
    """
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


def find_mount(name: str, installed: Mapping[str, str]) -> Mount:
    """The mount function called `name`: a name in `installed`, or an importable `package.module[:function]`.

    The function is called `mount` unless it is named. Raises ProviderModuleError.
    """
    target = installed.get(name, name)
    if name not in installed and not _DOTTED.fullmatch(name):
        raise _unknown(name, installed)
    module_name, _, function = target.partition(":")
    try:
        module = _run(lambda: importlib.import_module(module_name), name)
    except ProviderModuleError as problem:
        absent = (
            getattr(problem.__cause__, "name", None)
            if isinstance(problem.__cause__, ModuleNotFoundError)
            else None
        )
        if name not in installed and absent and f"{module_name}.".startswith(f"{absent}."):
            raise _unknown(name, installed) from None
        raise
    return mount_in(module, function or "mount")


def mount_in(module: ModuleType, function: str = "mount") -> Mount:
    """The mount function of an imported module. Raises ProviderModuleError."""
    found: Any = module
    for part in function.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ProviderModuleError(
            f"Module {module.__name__!r} has no function {function!r}.",
            remedy="A provider module defines `async def mount(coordinator, config)`; "
            "name another function as module:function.",
            missing=False,
        )
    return cast("Mount", found)


@contextmanager
def module_at(path: Path) -> Iterator[ModuleType]:
    """Import a `.py` file or a package folder from where it lies, for the length of the block.

    Its neighbours can be imported inside the block; afterwards `sys.path` and `sys.modules` are as before.
    Raises ProviderModuleError.
    """
    path = path.resolve()
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix != ".py" or not source.is_file():
        raise ProviderModuleError(
            f"{path} is neither a .py file nor a package folder with an __init__.py.",
            remedy="Give the path of the provider's module or package.",
            missing=True,
        )
    name = path.name if path.is_dir() else path.stem
    spec = importlib.util.spec_from_file_location(
        name, source, submodule_search_locations=[str(path)] if path.is_dir() else None
    )
    if spec is None or spec.loader is None:
        raise ProviderModuleError(
            f"{path} cannot be imported.", remedy="Give the path of a .py file.", missing=True
        )
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    modules_before, path_before = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(path.parent))
    for loaded in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
        del sys.modules[loaded]  # an installed module of the same name must not shadow the one asked for
    sys.modules[name] = module
    try:
        _run(lambda: loader.exec_module(module), str(path))
        yield module
    finally:
        sys.path[:] = path_before
        _restore_modules(modules_before, path.parent)


def _restore_modules(before: Mapping[str, ModuleType], folder: Path) -> None:
    """Forget what was imported from below `folder`; keep the rest, which half-loaded twice would break."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if before.get(name) is not module and file is not None and Path(file).is_relative_to(folder):
            del sys.modules[name]
    for name, module in before.items():
        sys.modules.setdefault(name, module)


def _run(load: Callable[[], T], name: str) -> T:
    try:
        return load()
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; it is reported
        raise ProviderModuleError(
            f"Importing {name!r} failed: {brief(error)}",
            remedy="Install what it needs, or fix the module; `trio-agent provider validate` shows it alone.",
            missing=False,
        ) from error


def brief(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """A foreign exception in one line of at most 300 characters, after `redact` has seen all of it."""
    lines = redact(str(error)).splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def _unknown(name: str, installed: Mapping[str, str]) -> ProviderModuleError:
    near = difflib.get_close_matches(name[:200], installed, n=3)
    remedy = f"Did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    known = ", ".join(sorted(installed)) or "none; is the distribution installed?"
    return ProviderModuleError(
        f"There is no provider module {name[:200]!r}.",
        remedy=f"{remedy}Installed: {known}. Otherwise give an importable package.module[:function].",
        missing=True,
    )
