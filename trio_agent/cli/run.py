"""`trio-agent run`: one turn on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click
import msgspec
import trio

from trio_agent.cli.common import config_option, read_draft, record_option
from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import Progress, progress
from trio_agent.cli.telling import log_to_stderr
from trio_agent.cli.terminal import said_to
from trio_agent.cli.waiting import waiting
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import ProviderConfig, RoutingConfig
from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Message, Text
from trio_agent.statemachine.events import RefusalDelta, TextDelta

if TYPE_CHECKING:
    from trio_agent.agent import Agent

_EXAMPLES: Final = """\b
Examples:
  trio-agent run --config host_config.json "Why is the sky blue?"
  trio-agent run --config host_config.json --model small --json - < question.txt
"""


@click.command(epilog=_EXAMPLES)
@click.argument("prompt", required=False)
@config_option
@click.option("--model", help="The model; may be left out where only one is served.")
@click.option("--role", help="A role of routing.roles, instead of a model.")
@click.option("--system", help="Instructions that go before the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@record_option
def run(
    prompt: str | None,
    config_path: Path | None,
    model: str | None,
    role: str | None,
    system: str | None,
    as_json: bool,
    no_stream: bool,
    record: Path | None,
) -> None:
    """Run one turn and print the answer as it comes.

    PROMPT is the user's message; `-`, or a pipe, reads it from standard input.
    """
    if model is not None and role is not None:
        raise click.UsageError("name a --model or a --role, not both")
    log_to_stderr("warning", turns=False)
    draft = _with_own_provider(read_draft(config_path))
    messages = _messages(system, _read_prompt(prompt))
    try:
        with progress() as line:
            trio.run(_run, draft, messages, model, role, as_json, no_stream, record, line)
    except ConfigError as error:
        raise ConfigError([_as_written(each, draft) for each in error.problems]) from None


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        if not prompt.strip():
            raise click.UsageError("the PROMPT is empty")
        return prompt
    source: TextIO | None = sys.stdin
    if source is None or (prompt is None and source.isatty()):
        raise click.UsageError("give a PROMPT, or pipe one in")
    text = source.buffer.read().decode(errors="replace")
    if not text.strip():
        raise click.UsageError("standard input held no prompt: give a PROMPT, or pipe one in")
    return text


def _messages(system: str | None, prompt: str) -> list[Message]:
    messages = [] if system is None else [Message("system", (Text(system),))]
    return [*messages, Message("user", (Text(prompt),))]


def _with_own_provider(draft: Draft) -> Draft:
    """`provider`, where it is set, is the only one that `run` uses; routes lead to the others."""
    if draft.lacks("provider"):
        raise ConfigError(draft.problems)
    config = draft.config
    if config is None or config.provider is None:
        return draft
    own = ProviderConfig(module=config.provider.module, config=config.provider.config)
    alone = msgspec.structs.replace(config, providers={config.provider.module: own}, routing=RoutingConfig())
    return Draft(alone, draft.problems, tuple(out for out in draft.left_out if out[:1] != ("providers",)))


def _as_written(problem: ConfigProblem, draft: Draft) -> ConfigProblem:
    """A problem of the booted provider at the place where the file has it."""
    own = draft.config.provider if draft.config else None
    if own is None or problem in draft.problems:
        return problem
    prefix = f"providers.{own.module}"
    if problem.path != prefix and not problem.path.startswith(f"{prefix}."):
        return problem
    return msgspec.structs.replace(problem, path="provider" + problem.path[len(prefix) :])


def _default_model(agent: Agent) -> str:
    names = [ref.listed_as for ref in agent.models()]
    if len(names) > 1:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise click.UsageError(f"several models are served; name one with --model: {shown}")
    return names[0]


async def _run(
    draft: Draft,
    messages: list[Message],
    model: str | None,
    role: str | None,
    as_json: bool,
    no_stream: bool,
    record: Path | None,
    line: Progress,
) -> None:
    from trio_agent.opening import open_agent  # takes most of the start, and help can do without

    async with (
        waiting(line, "asking the providers for their models") as booting,
        open_agent(draft, record=record) as agent,
    ):
        booting.over()
        if model is None and role is None:
            model = _default_model(agent)
        async with (
            waiting(line, f"waiting for {model or role}") as shown,
            agent.turn(messages, model=model, role=role) as turn,
        ):
            streams = not (as_json or no_stream)
            words: list[str] = []
            try:
                async for event in turn:
                    if isinstance(event, TextDelta | RefusalDelta):
                        words.append(event.text)
                        if streams:
                            shown.over()
                            click.echo(said_to(sys.stdout, event.text), nl=False)
            except AgentError:
                if streams and words:
                    click.echo()  # what is told of the failure begins a line of its own
                raise
            shown.over()
            if as_json:
                _print_json(turn.id, turn.model, "".join(words), turn.finished)
            else:
                click.echo(said_to(sys.stdout, "".join(words)) if no_stream else "")


def _print_json(turn_id: str, model: str, text: str, finished: object) -> None:
    if finished is None:
        raise AgentError("internal_error", "The turn ended without an outcome.")
    record = {"id": turn_id, "model": model, "text": text, **msgspec.to_builtins(finished)}
    click.echo(json_text(record, indent=-1))
