"""`python -m trio_agent` is the command `trio-agent`."""

from trio_agent.cli import main

if __name__ == "__main__":
    main(prog_name="trio-agent")
