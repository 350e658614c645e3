"""Pages on commands, made from what click knows of them."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Iterator, Mapping, Sequence

import click

from trio_agent.cli import COMMANDS, main
from trio_agent.cli.examples import lines_of

PROGRAM = "trio-agent"
HEAD = "<!-- Made by `make generate` from the command itself. -->"


def root() -> click.Context:
    """The context of the program itself, with the settings that it has when it runs."""
    return click.Context(main, info_name=PROGRAM, **main.context_settings)


def walk(command: click.Command = main, context: click.Context | None = None) -> Iterator[click.Context]:
    """The context of a command and of every one below it, in the order of their lists."""
    context = context or root()
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from walk(below, click.Context(below, info_name=name, parent=context))


def printed(*arguments: str) -> str:
    """What a command prints on standard output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main.main([*arguments], prog_name=PROGRAM, standalone_mode=False)
    return out.getvalue()


def pages() -> Mapping[str, str]:
    """The page of each command, by the name of the command."""
    group = root()
    return {name: _page(main.get_command(group, name), name, group) for name in COMMANDS}


def listed() -> str:
    """Links to the pages, with what each command does."""
    return "".join(
        f"- [`{PROGRAM} {name}`]({name}.md): {_in_sentence(text)}\n" for name, text in COMMANDS.items()
    )


def variables() -> str:
    """A table of the environment's variables and the options that they stand for."""
    found: dict[str, dict[str, list[str]]] = {}
    for context in walk():
        for option in _options(context):
            for name in _variables(option):
                found.setdefault(name, {}).setdefault(option.opts[-1], []).append(context.command_path)
    rows = []
    for name in sorted(found):
        for option, commands in found[name].items():
            rows.append(f"| `{name}` | `{option}` | {', '.join(f'`{each}`' for each in commands)} |")
    return "\n".join(["| variable | stands for | of |", "|---|---|---|", *rows]) + "\n"


def _page(command: click.Command | None, name: str, group: click.Context) -> str:
    assert command is not None
    contexts = list(walk(command, click.Context(command, info_name=name, parent=group)))
    parts = [f"# `{contexts[0].command_path}`", HEAD, *_of(contexts[0])]
    for context in contexts[1:]:
        parts += [f"## `{context.command_path}`", *_of(context)]
    parts.append("What all commands have in common is [here](index.md#what-all-commands-have-in-common).")
    return "\n\n".join(parts) + "\n"


def _of(context: click.Context) -> Iterator[str]:
    """A command without its heading: what it does, how it is called, options, examples."""
    paragraphs = _paragraphs(context.command.help or "")
    yield paragraphs[0]
    yield f"```text\n{_usage(context)}\n```"
    yield from paragraphs[1:]
    if options := _options(context):
        yield _table([("option", "default", "variable", "means"), *(_row(option) for option in options)])
    if isinstance(context.command, click.Group):
        names = context.command.list_commands(context)
        yield "Below it: " + ", ".join(f"[`{name}`](#{_anchor(context, name)})" for name in names) + "."
    if examples := "\n".join(_examples(context)):
        yield f"```sh\n{examples}\n```"


def _anchor(context: click.Context, name: str) -> str:
    return f"{context.command_path} {name}".replace(" ", "-")


def _usage(context: click.Context) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return " ".join([context.command_path, *pieces])


def _options(context: click.Context) -> list[click.Option]:
    found = [each for each in context.command.get_params(context) if isinstance(each, click.Option)]
    return [each for each in found if not each.hidden and "--help" not in each.opts]


def _variables(option: click.Option) -> list[str]:
    if option.envvar is None:
        return []
    return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows below their heading; a column in which nothing stands is left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *others = (f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
    return "\n".join([head, "|---" * len(columns) + "|", *others])


def _row(option: click.Option) -> tuple[str, str, str, str]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    metavar = _metavar(option)
    if metavar:
        names = f"{names[:-1]} {metavar}`"
    default = option.default if option.show_default or not option.is_flag else None
    shown = "" if default is None or callable(default) or not _is_plain(default) else f"`{default}`"
    variables = ", ".join(f"`{name}`" for name in _variables(option))
    means = " ".join(filter(None, [_prose(option.help or ""), _range(option)]))
    if option.required:
        means = f"{means} Must be given.".strip()
    return names, shown, variables, means.replace("|", "\\|")


def _is_plain(default: object) -> bool:
    """Whether it is a value; click marks the absence of one with a value of its own."""
    return isinstance(default, str | int | float) and default != ""


def _metavar(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.IntRange | click.FloatRange) or option.type in (click.INT, click.FLOAT):
        return "N"
    if isinstance(option.type, click.Path | click.File):
        return "PATH"
    return option.opts[-1].upper().rpartition("-")[2] if isinstance(option.type, click.Choice) else "TEXT"


def _range(option: click.Option) -> str:
    kind = option.type
    if isinstance(kind, click.Choice):
        return "One of " + ", ".join(f"`{choice}`" for choice in kind.choices) + "."
    if isinstance(kind, click.IntRange | click.FloatRange) and not option.count:
        if kind.max is None:
            return f"At least {kind.min}." if kind.min is not None else ""
        return f"At most {kind.max}." if kind.min is None else f"{kind.min} to {kind.max}."
    return ""


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a command's help as Markdown. Those behind `\\b` keep their lines."""
    found = []
    for paragraph in inspect.cleandoc(text.partition("\f")[0]).split("\n\n"):
        if paragraph.startswith("\b\n"):
            found.append(f"```text\n{inspect.cleandoc(paragraph[2:])}\n```")
        elif paragraph.strip():
            found.append(_prose(paragraph.strip()))
    return found or [""]


def _prose(text: str) -> str:
    """What a terminal shows as it is, as Markdown shows it as it is. Code between back-quotes stays."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([*<\[\]])", r"\\\1", piece) for piece in pieces
    )


def _examples(context: click.Context) -> list[str]:
    """Those of a command; a group's that stand at the commands below it are left out."""
    below = [each for each in walk(context.command, context) if each is not context]
    shown = {line for each in below for line in lines_of(each.command.epilog)}
    return [line for line in lines_of(context.command.epilog) if line not in shown]


def _in_sentence(text: str) -> str:
    return text[0].lower() + text[1:].rstrip(".")
