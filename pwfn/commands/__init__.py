"""The list of `pwfn`'s commands. Each has a module of its name in this package.

Such a module has `parse(parser, arguments)` and `run(options)`. It imports slow packages only inside `run`, so that
help and misspelt options are answered at once. `options.command_line` is the command as the user typed it. Errors that
a user can cause are printed here, in one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from pwfn import __doc__ as purpose
from pwfn import __version__, stopping
from pwfn.errors import TrialError, UserError, nearest_names
from pwfn.invocation import command_line

COMMANDS = {
    "search": "Search a space for its Pareto front.",
    "train": "Run one trial by hand.",
    "report": "Report a sweep, while it runs or after.",
    "export": "Export a compressed network as a small file.",
    "evaluate": "Measure an exported network.",
    "shrink": "Make smaller files of an exported network, of ever fewer values.",
    "publish": "Copy what a report needs of studies into a few small files.",
    "dashboard": "Show a study in optuna-dashboard.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pwfn COMMAND ...`; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    return run(parser.parse_args(given[:1]).command, given[1:])


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    0: it did what was asked. 1: training or the machine failed. 2: an error that the user can correct. 130 or 143: a
    signal ended it.
    """
    command = import_module(f"pwfn.commands.{name}")
    parser = argparse.ArgumentParser(prog=command_line(name), description=COMMANDS[name])
    options: argparse.Namespace = command.parse(parser, arguments)
    options.command_line = command_line(name, *arguments)
    try:
        with stopping.by_exception():
            code: int = command.run(options)
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return stopping.exit_code(stop)
    except TrialError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except _errors_of_users() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


def _errors_of_users() -> tuple[type[Exception], ...]:
    """Return the types of errors that users can cause.

    Those of `analysis` belong to them only if the command imported it; to import it here would take seconds.
    """
    analysis = sys.modules.get("analysis")
    return (UserError, analysis.AnalysisError) if analysis is not None else (UserError,)


def _parser() -> argparse.ArgumentParser:
    """Make the parser of the name of the command and the options before it."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="pwfn",
        usage="pwfn COMMAND ...",
        description=purpose,
        epilog="\n".join(["commands:", *lines, "", "`pwfn COMMAND --help` shows the options of one."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pwfn {__version__}")
    parser.add_argument("command", metavar="COMMAND", type=_known, help="one of those below")
    return parser


def _known(name: str) -> str:
    if name not in COMMANDS:
        hint = nearest_names(name, COMMANDS, count=1)
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(COMMANDS)}{hint}")
    return name
