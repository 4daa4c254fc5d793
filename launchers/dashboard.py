"""Shows a study in optuna-dashboard, while its sweep runs or after: `python launchers/dashboard.py --study digits`.

Needs the extra: `python -m pip install 'pwfn[dashboard]'`. Everything is read from the results folder.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout that is not installed

from pwfn.errors import UserError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Show a study in optuna-dashboard.")
    parser.add_argument("--study", required=True, help="the study to show")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--port", type=int, default=8080, help="port on this machine, 0 for a free one (default: 8080)")
    parser.add_argument("--seconds", type=float, default=3, help="between looks at the folder (default: 3)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from pwfn.results.store import ResultsStore
    from pwfn.search.dashboard import Dashboard, Mirror

    mirror = Mirror(ResultsStore(options.results, options.study))
    dashboard = Dashboard(mirror, port=options.port, seconds=options.seconds)
    print(f"{options.study} with {len(mirror.trials)} trials: {dashboard.url} (Ctrl-C ends)", flush=True)
    dashboard.serve()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and turn a user's error into one line and exit code 2."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        run(parse(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
