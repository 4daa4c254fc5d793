"""Shows a study in optuna-dashboard, during its sweep or later: `pwfn dashboard --study digits`.

It needs optuna-dashboard: `python -m pip install 'pwfn[dashboard]'`. It only reads the results folder.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument("--study", required=True, help="the study to show")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--port", type=int, default=8080, help="port on this machine, 0 for a free one (default: 8080)")
    parser.add_argument("--seconds", type=float, default=3, help="between looks at the folder (default: 3)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from pwfn.results.store import ResultsStore
    from pwfn.search.dashboard import Dashboard, Mirror

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    mirror = Mirror(ResultsStore(options.results, options.study))
    dashboard = Dashboard(mirror, port=options.port, seconds=options.seconds)
    print(f"{options.study} with {len(mirror.trials)} trials: {dashboard.url} (Ctrl-C ends)", flush=True)
    try:
        dashboard.serve()
    except KeyboardInterrupt:
        print()
    return 0
