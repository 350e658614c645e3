"""Lists in the manual against the program: neither can have what the other lacks."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from doc_pages import DOCS, FOLDERS, PAGES, ROOT, anchors_of, code_words, links_of, prose_of, table

from trio_agent.cli import COMMANDS
from trio_agent.config.describe import keys
from trio_agent.config.schema import Config
from trio_agent.errors import FINAL_CODES, STATUS, AgentError
from trio_agent.faces.answer import anthropic_error_members, error_members
from trio_agent.providers import anthropic
from trio_agent.providers.contract import CallLimits
from trio_agent.providers.openai_compatible import CHAT_COMPLETIONS
from trio_agent.providers.presets import PRESETS
from trio_agent.providers.replay_models import MODELS
from trio_agent.providers.replay_settings import ReplayConfig
from trio_agent.providers.replay_steps import _PARSERS
from trio_agent.providers.settings import ProviderSettings
from trio_agent.statemachine.effects import Outcome
from trio_agent.statemachine.failure import FailureKind
from trio_agent.store.schema import load_migrations
from trio_agent.wire.chat_request import ChatRequest
from trio_agent.wire.messages_request import MessagesRequest
from trio_agent.wire.responses_request import CreateResponse

ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
MODULES = set(ENTRY_POINTS["trio_agent.providers"])
README = ROOT / "README.md"
PROVIDERS = DOCS / "providers.md"
LIMITS = CallLimits()


def first_words(rows: list[list[str]]) -> list[str]:
    """Every code word of the first column."""
    return [word for row in rows for word in code_words(row[0])]


def test_every_error_code_is_explained() -> None:
    """The table of errors has each code once, with its status, whether to repeat, a meaning and a remedy."""
    rows = table(DOCS / "errors.md", "code", "status", "repeat")
    shown = {code_words(code)[0]: (int(status), repeat) for code, status, repeat, _, _ in rows}
    assert shown == {
        code: (status, "no" if code in FINAL_CODES else "yes") for code, status in STATUS.items()
    }
    assert len(rows) == len(STATUS)
    assert all(meaning and remedy for *_, meaning, remedy in rows)


def test_the_types_of_errors_are_those_of_the_answers() -> None:
    """The table from status to `error.type` holds for every code there is."""
    rows = {status: types for status, *types in table(DOCS / "errors.md", "status", "`error.type`")}
    for code, status in STATUS.items():
        row = rows.get(str(status)) or rows["other 4xx" if status < 500 else "other 5xx"]
        error = AgentError(code, "…")
        shown = [error_members(error)["type"], anthropic_error_members(error)["type"]]
        assert shown == [code_words(cell)[0] for cell in row]


def test_every_field_of_a_chat_request_is_explained() -> None:
    """The manual's table of fields has those that the decoder knows, each once."""
    fields = [word for row in table(DOCS / "chat-completions.md", "field") for word in code_words(row[0])]
    assert sorted(fields) == sorted(ChatRequest.__struct_fields__)


def test_every_field_of_a_messages_request_is_explained() -> None:
    """The same over Messages."""
    fields = [word for row in table(DOCS / "messages.md", "field") for word in code_words(row[0])]
    assert sorted(fields) == sorted(MessagesRequest.__struct_fields__)


def test_every_field_of_a_responses_request_is_explained() -> None:
    """The same over Responses."""
    fields = [word for row in table(DOCS / "responses.md", "field") for word in code_words(row[0])]
    assert sorted(fields) == sorted(CreateResponse.__struct_fields__)


def test_the_table_of_modules_is_complete_and_right() -> None:
    """Every module that is installed is listed, with the address and the variables that it really uses."""
    shown = {code_words(row[0])[0]: row[2:] for row in table(PROVIDERS, "module", "vendor")}
    expected: dict[str, tuple[list[str], list[str], list[str]]] = {"replay": ([], [], [])}
    for preset in (*PRESETS, CHAT_COMPLETIONS):
        address = ["base_url"] if preset.base_url is None else [preset.base_url]
        expected[preset.name] = (address, list(preset.key_names), list(preset.url_names))
    expected["anthropic"] = (
        [anthropic.BASE_URL],
        [anthropic.KEY_VARIABLE, anthropic.TOKEN_VARIABLE],
        [anthropic.BASE_URL_VARIABLE],
    )
    assert {name: tuple(code_words(cell) for cell in cells) for name, cells in shown.items()} == expected
    assert set(shown) == MODULES


def test_the_readme_lists_the_modules() -> None:
    """The list of what works names every provider module."""
    (item,) = re.findall(r"- the providers (.*?)(?=\n- )", prose_of(README), re.DOTALL)
    assert set(code_words(item)) == MODULES


def test_shared_settings_are_explained_with_their_defaults() -> None:
    """The table of shared settings has the keys of the schema and the values that hold without them."""
    rows = table(PROVIDERS, "key", "default", "means")[: len(ProviderSettings.__struct_fields__)]
    assert sorted(first_words(rows)) == sorted(ProviderSettings.__struct_fields__)
    for name, default, _ in rows:
        (key,), said = code_words(name), code_words(default)
        holds: Any = getattr(LIMITS, key, None)
        if holds is None:
            holds = getattr(ProviderSettings(), key)
        if holds is not None:
            assert [str(said[0])] == [f"{holds:g}" if isinstance(holds, float) else str(holds)], key


def test_replays_models_steps_and_keys_are_explained() -> None:
    """The pages on `replay` list its models, the steps of scripts, the kinds of failures and its keys."""
    assert first_words([row[:1] for row in table(PROVIDERS, "model", "does")]) == list(MODELS)
    assert sorted(first_words(table(PROVIDERS, "step", "does"))) == sorted(_PARSERS)
    (kinds,) = re.findall(r"The kinds of `fail` are (.*?)\.\n", prose_of(PROVIDERS), re.DOTALL)
    assert set(code_words(kinds)) == set(get_args(FailureKind))
    own = set(ReplayConfig.__struct_fields__) - set(CallLimits.__struct_fields__)
    assert set(first_words(table(PROVIDERS, "key", "default of `replay`"))) == own


def test_every_outcome_is_explained() -> None:
    """The table of outcomes has those that rows can hold."""
    assert set(first_words(table(DOCS / "turns.md", "outcome", "reasons"))) == {*get_args(Outcome), "running"}


def test_limits_of_turns_have_the_schemas_defaults() -> None:
    """The times in the manual are those that hold when nothing is configured."""
    defaults: dict[str, float] = {
        info.path: float(info.default) for info in keys() if info.unit == "seconds" and info.default
    }
    for name, value, _ in table(DOCS / "turns.md", "limit", "default"):
        (key,) = code_words(name)
        seconds = float(value.removesuffix(" s"))
        wanted = defaults[key] if "." in key else getattr(LIMITS, key, None)
        assert seconds == (msgspec.structs.asdict(ProviderSettings())[key] if wanted is None else wanted), key
    assert Config().agent.max_model_calls == 24
    assert "`agent.max_model_calls` (24)" in prose_of(DOCS / "turns.md")


def test_every_table_of_the_database_is_explained() -> None:
    """The page on the store lists the tables that the migrations make."""
    made = re.findall(r"CREATE TABLE (\w+)", "".join(load_migrations()))
    assert sorted(first_words(table(DOCS / "store.md", "table"))) == sorted(made)


def test_exit_codes_and_outputs_are_explained() -> None:
    """The page on commands says what all have in common: four exit codes, two outputs, JSON, completion."""
    page = DOCS / "reference" / "index.md"
    assert [code for code, _ in table(page, "code", "means")] == ["0", "1", "2", "130"]
    assert {"exit-codes", "output", "output-for-programs", "completion", "variables"} <= anchors_of(page)


def test_every_room_is_on_the_map() -> None:
    """The page on architecture names every folder and module of the package."""
    page = prose_of(DOCS / "architecture.md")
    rooms = [path.parent.name for path in (ROOT / "trio_agent").glob("*/__init__.py")]
    assert [room for room in rooms if f"{room}/`" not in page] == []
    modules = [path.name for path in (ROOT / "trio_agent").glob("*.py") if not path.name.startswith("__")]
    assert [name for name in modules if f"{name}`" not in page] == []


@pytest.mark.parametrize("room", ["cli", "server"])
def test_large_rooms_have_maps_of_their_own(room: str) -> None:
    """They name every module; a command's own has the command's name, and needs no line."""
    page = prose_of(DOCS / "architecture.md")
    names = {path.name for path in (ROOT / "trio_agent" / room).glob("*.py")} - {"__init__.py"}
    commands = {f"{name}.py" for name in COMMANDS} if room == "cli" else set()
    assert sorted(name for name in names - commands if f"`{name}`" not in page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """A link inside the repository names a file that is there, and a heading that the page has."""
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}"


def test_every_page_is_on_the_map() -> None:
    """The index links to all pages of the manual, and that of a folder to all pages in it."""
    for folder in FOLDERS:
        linked = {link.partition("#")[0] for link in links_of(folder / "index.md")}
        assert {page.name for page in folder.glob("*.md")} - {"index.md"} <= linked, folder
        listed = re.findall(r"^- \[[^]]+\]\(([^)#]+\.md)\)", prose_of(folder / "index.md"), re.MULTILINE)
        assert len(listed) == len(set(listed)), "the navigation has a page once"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_says_what_it_is_for(page: Path) -> None:
    """Below the title comes a sentence, before any heading, table or sample."""
    title, _, rest = re.sub(r"<!--.*?-->\s*", "", page.read_text(encoding="utf-8")).partition("\n")
    assert title.startswith("# ")
    assert re.match(r"[\w`*\[]", rest.strip()), rest[:80]
    assert not rest.strip().startswith("```")


def test_every_example_is_shown() -> None:
    """Each file in `docs/examples` is spoken of on some page."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [path.name for path in DOCS.glob("examples/*.*") if f"examples/{path.name}" not in text] == []


def test_names_of_the_library_exist() -> None:
    """What the page on embedding says of signatures is what the functions have."""
    page = prose_of(DOCS / "embedding.md")
    signatures = re.findall(r"`((?:open_agent|agent\.turn|serve)\([^`]*)`", page)
    assert len(signatures) >= 3
    homes = {"serve": "server/app.py", "open_agent": "opening.py", "turn": "agent.py"}
    for text in signatures:
        call = text.replace("agent.turn", "turn")
        source = (ROOT / "trio_agent" / homes[call.partition("(")[0]]).read_text()
        name, _, arguments = call.partition("(")
        wanted = ast.parse(f"def {name}({arguments}: pass").body[0]
        (found,) = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        assert isinstance(wanted, ast.FunctionDef)
        assert _shape(wanted.args, "self") == _shape(found.args, "self", "task_status"), text


def _shape(arguments: ast.arguments, *without: str) -> list[tuple[str, str]]:
    """Names and defaults of parameters."""
    plain = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [
        *zip(plain, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [
        (each.arg, "" if default is None else ast.unparse(default))
        for each, default in pairs
        if each.arg not in without
    ]


def test_clients_are_tried_in_the_versions_shown() -> None:
    """The versions in the manual are those that are pinned for the tests, or installed by `make interop`."""
    pinned = (ROOT / "requirements/dev.lock").read_text(encoding="utf-8")
    pinned += (ROOT / "tools/interop/installing.py").read_text(encoding="utf-8")
    versions = re.findall(
        r"\d+\.\d+\.\d+", " ".join(row[1] for row in table(DOCS / "clients.md", "client", "version"))
    )
    assert len(versions) == 12
    assert [version for version in versions if version not in pinned] == []
