"""`trio-agent run`: one turn on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
import trio

from trio_agent.agent import Agent, open_agent
from trio_agent.cli.common import config_option, log_to_stderr, read_config
from trio_agent.config.schema import Config, ProviderConfig, RoutingConfig
from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Message, Text
from trio_agent.statemachine.events import RefusalDelta, TextDelta


@click.command()
@click.argument("prompt", required=False)
@config_option
@click.option("--model", help="The model; may be left out where only one is served.")
@click.option("--role", help="A role of routing.roles, instead of a model.")
@click.option("--system", help="Instructions that go before the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
def run(
    prompt: str | None,
    config_path: Path | None,
    model: str | None,
    role: str | None,
    system: str | None,
    as_json: bool,
    no_stream: bool,
) -> None:
    """Run one turn and print the answer as it comes.

    PROMPT is the user's message; `-`, or a pipe, reads it from standard input.
    """
    if model is not None and role is not None:
        raise click.UsageError("name a --model or a --role, not both")
    log_to_stderr("warning")
    config = _with_own_provider(read_config(config_path))
    messages = _messages(system, _read_prompt(prompt))
    trio.run(_run, config, messages, model, role, as_json, no_stream)


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        if not prompt.strip():
            raise click.UsageError("the PROMPT is empty")
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or pipe one in")
    text = sys.stdin.buffer.read().decode(errors="replace")
    if not text.strip():
        raise click.UsageError("standard input held no prompt")
    return text


def _messages(system: str | None, prompt: str) -> list[Message]:
    messages = [] if system is None else [Message("system", (Text(system),))]
    return [*messages, Message("user", (Text(prompt),))]


def _with_own_provider(config: Config) -> Config:
    """`provider`, where it is set, is the only one that `run` uses; routes lead to the others."""
    if config.provider is None:
        return config
    own = ProviderConfig(module=config.provider.module, config=config.provider.config)
    return msgspec.structs.replace(config, providers={config.provider.module: own}, routing=RoutingConfig())


def _default_model(agent: Agent) -> str:
    names = [ref.listed_as for ref in agent.models()]
    if len(names) > 1:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise click.UsageError(f"several models are served; name one with --model: {shown}")
    return names[0]


async def _run(
    config: Config,
    messages: list[Message],
    model: str | None,
    role: str | None,
    as_json: bool,
    no_stream: bool,
) -> None:
    async with open_agent(config) as agent:
        if model is None and role is None:
            model = _default_model(agent)
        async with agent.turn(messages, model=model, role=role) as turn:
            words: list[str] = []
            async for event in turn:
                if not isinstance(event, TextDelta | RefusalDelta):
                    continue
                words.append(event.text)
                if not (as_json or no_stream):
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
            if as_json:
                _print_json(turn.id, turn.model, "".join(words), turn.finished)
            else:
                click.echo("".join(words) if no_stream else "")


def _print_json(turn_id: str, model: str, text: str, finished: object) -> None:
    if finished is None:
        raise AgentError("internal_error", "The turn ended without an outcome.")
    record = {"id": turn_id, "model": model, "text": text, **msgspec.to_builtins(finished)}
    click.echo(msgspec.json.encode(record).decode())
