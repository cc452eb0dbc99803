"""The command line; each command is a module."""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a user's mistake gives one line on stderr and exit code 2."""
    from fewlabels.cli.app import main as run  # imported here, so that importing one command does not import all

    run()
