"""The command line: one file a command."""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    from fewlabels.cli.app import main as run  # imported late, so that a command's module can be imported alone

    run()
