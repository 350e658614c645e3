"""docs/configuration.md against the schema: it cannot fall behind, and its examples work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from trio_agent.config.describe import KeyInfo, keys
from trio_agent.config.load import parse_config
from trio_agent.config.problems import ConfigError, ProblemCode

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
ENV = {"LAB_KEY": "k1", "TEAM_TOKEN": "k2", "SERVER_KEY": "0123-a-long-enough-key"}


def rows(heading: str) -> list[list[str]]:
    """The cells of all table rows below tables with this heading, bare of back-quotes."""
    found: list[list[str]] = []
    inside = False
    for line in PAGE.splitlines():
        if line.startswith(heading):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def bare(cell: str) -> str:
    return cell.removeprefix("`").removesuffix("`")


def literal(text: str) -> set[str]:
    return set(text.split(" or "))


def documented() -> dict[str, KeyInfo]:
    return {
        bare(key): KeyInfo(bare(key), kind, bare(default), unit)
        for key, kind, default, unit, _ in rows("| key |")
    }


def test_every_key_is_documented_and_nothing_else() -> None:
    """A key that was added or removed without a word in the manual fails here."""
    assert sorted(documented()) == sorted(info.path for info in keys())


@pytest.mark.parametrize("info", keys(), ids=lambda info: info.path)
def test_a_documented_key_has_the_schemas_type_default_and_unit(info: KeyInfo) -> None:
    """The manual's table says of each key what the schema says."""
    said = documented()[info.path]
    assert (said.default, said.unit) == (info.default, info.unit)
    assert literal(said.type) == literal(info.type)


def test_every_documented_key_has_a_meaning() -> None:
    """No row of the manual leaves its last cell empty."""
    assert all(meaning for *_, meaning in rows("| key |"))


def test_every_code_is_documented() -> None:
    """The manual lists exactly the codes that problems of a configuration bear."""
    assert {bare(code) for code, _ in rows("| code |")} == set(get_args(ProblemCode))


@pytest.mark.parametrize("example", re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
def test_the_manuals_examples_are_right(example: str) -> None:
    """Whoever copies an example gets a configuration that loads."""
    parse_config(example, ENV)


def test_the_manuals_report_is_what_is_printed() -> None:
    """The sample of an error report is the program's own output."""
    source = {"providers": {"openai": {"confg": {}}}, "preflight_timeout": 3}
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(source), {})
    (sample,) = re.findall(r"```text\n(providers\.openai\.confg.*?)\n```", PAGE, re.DOTALL)
    assert str(caught.value) == sample
