"""`trio-agent completion`: what a shell needs to complete our commands and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

PROGRAM: Final = "trio-agent"
VARIABLE: Final = "_TRIO_AGENT_COMPLETE"
"""What the script sets to ask the program for words. Click makes the name from the program's."""

SHELLS: Final[Mapping[str, type[ShellComplete]]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}

_EXAMPLES: Final = """\b
Examples:
  trio-agent completion bash > ~/.local/share/bash-completion/completions/trio-agent
  trio-agent completion zsh > ~/.zfunc/_trio-agent
  trio-agent completion fish > ~/.config/fish/completions/trio-agent.fish
"""


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and their values in a shell.

    Put it where the shell looks for such scripts, as below; for zsh that folder must be in $fpath. Or let
    the shell read it at its start: in ~/.bashrc, eval "$(trio-agent completion bash)". Bash must be 4.4 or
    newer. Names of models are not completed: to know them, the providers would have to be asked.
    """
    completing = SHELLS[shell](context.find_root().command, {}, PROGRAM, VARIABLE)
    # Bash's own method would first run a bash to see which one it is.
    click.echo(ShellComplete.source(completing))
