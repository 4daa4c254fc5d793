"""Searches a space for its Pareto front: how few values at what accuracy.

pwfn search --space digits.yaml
pwfn search --space deit.yaml --address auto --set data.root=/data/imagenet
pwfn search --space digits.yaml --study longer --trials 200 --warm-start results/digits --confirm 2

The same command, given again, continues an interrupted search from the results folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pwfn import stopping
from pwfn.errors import UserError
from pwfn.invocation import command_line

if TYPE_CHECKING:
    from rich.console import Console

    from analysis import Study
    from pwfn.config import TrialConfig
    from pwfn.space.space import PlanRow, SearchSpace
    from pwfn.sweep.opening import Request


LONGEST_TEMP_DIR = 40
"""Ray appends `/session_2026-11-28_22-12-01_123456_12345/sockets/plasma_store` and digits, 67 characters at most."""


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser.add_argument("--space", required=True, help="a YAML file, or the name of one in search_spaces/")
    parser.add_argument("--trials", type=int, help="how many trials (default: the space's search.trials)")
    parser.add_argument("--results", default="results", help="folder or URI of all results (default: results)")
    parser.add_argument("--study", help="name of the study (default: the space's name)")
    parser.add_argument("--address", help="Ray cluster, as in ray.init (default: start Ray on this machine)")
    parser.add_argument("--ray-temp-dir", metavar="DIR",
                        help="folder for Ray's own files here, with a short path (default: /tmp/ray)")  # fmt: skip
    parser.add_argument("--seed", type=int, help="seed of the study (default: the space's search.seed)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="overrides",
                        help="fields of the configuration or of the search: method.b=7 search.sampler=gp")  # fmt: skip
    parser.add_argument("--warm-start", nargs="+", action="extend", default=[], metavar="RESULTS/STUDY",
                        help="folders or URIs of other studies, whose trials the search learns from")  # fmt: skip
    parser.add_argument("--confirm", type=int, default=0, metavar="N",
                        help="after the search, run each trial on the front again with N other seeds")  # fmt: skip
    owner = parser.add_mutually_exclusive_group()  # trials that another search has told its sampler cannot run again
    owner.add_argument("--join", action="store_true",
                       help="share the study with the searches that run it, on this machine or others")  # fmt: skip
    owner.add_argument("--retry-failed", nargs="?", const="all", metavar="CLASS",
                       help="run failed trials again, of one class (oom, lost, timeout, ...) or all")  # fmt: skip
    parser.add_argument("--only-float", action="store_true",
                        help="train the float networks and end; without it the same command goes on")  # fmt: skip
    parser.add_argument("--force-resume", action="store_true",
                        help="go on although the space, the code or the data differ; study.json says so")  # fmt: skip
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the space, print the plan and what is understood of data and network, start nothing",
    )
    parser.add_argument(
        "--check-data",
        action="store_true",
        help="look at every image on this machine and list the broken ones before anything starts",
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Search, or show the plan; return the exit code: 0, or 130 if a second Ctrl-C stopped it."""
    from rich.console import Console

    from pwfn.space.space import SearchSpace

    console = Console(width=None if sys.stdout.isatty() else 160)
    space = SearchSpace.load(options.space, options.overrides, seed=options.seed, trials=options.trials)
    check_temp_dir(options.ray_temp_dir, options.address)
    if options.confirm < 0:
        raise UserError(f"--confirm is {options.confirm}, but must be at least 0")
    try:
        if options.dry_run:
            show_plan(space.name, plan(space, options), console)
            _check_study(space, options)
            _understand(space, console)
        if options.check_data:
            check_data(space.float_networks(), console)
        if not options.dry_run:
            _search(space, options, console)
    except KeyboardInterrupt as stop:
        print("stopped at once; the same command goes on from the last rounds", file=sys.stderr)
        return stopping.exit_code(stop)
    return 0


def plan(space: SearchSpace, options: argparse.Namespace) -> list[PlanRow]:
    """List the rows of the plan, which says what would run."""
    from pwfn.space.space import PlanRow

    rows = space.plan()
    if options.warm_start:
        from pwfn.search.warm_start import borrow

        lines = borrow(space, options.warm_start).lines
        rows += [PlanRow("warm start", str(index), line) for index, line in enumerate(lines)]
    if options.confirm:
        rows.append(PlanRow("confirm", "seeds", f"{options.confirm} more for each trial on the front"))
    return rows


def show_plan(name: str, plan_rows: list[PlanRow], console: Console) -> None:
    """Print the plan."""
    from rich.table import Table

    table = Table(title=f"Plan of {name}", title_justify="left", show_header=False, show_lines=False)
    for part, rows in groupby(plan_rows, key=lambda row: row.part):
        for index, row in enumerate(rows):
            table.add_row(part if index == 0 else "", row.name, row.value)
        table.add_section()
    console.print(table)


def _check_study(space: SearchSpace, options: argparse.Namespace) -> None:
    """Raise UserError where a search would be refused for what is in the folder of its study; write nothing."""
    from pwfn.results.store import ResultsStore
    from pwfn.search.study import SearchStudy
    from pwfn.sweep.opening import check_request  # imports torch, after the plan is shown

    store = ResultsStore(options.results, options.study or space.name)
    check_request(SearchStudy(space, store), request_of(options))


def request_of(options: argparse.Namespace) -> Request:
    """Put together what the command line asks for, beside the space."""
    from pwfn.sweep.opening import Request

    return Request(
        command=options.command_line,
        force=options.force_resume,
        join=options.join,
        warm_start=tuple(options.warm_start),
        retry_failed=options.retry_failed,
        ray_temp_dir=options.ray_temp_dir,
        only_float=options.only_float,
    )


def _understand(space: SearchSpace, console: Console) -> None:
    """Print how each float network's data and weights are understood.

    Raises:
        UserError: an error that would also stop the trials.
    """
    from pwfn.trial.understood import understand  # imports torch, after the plan is shown
    from pwfn.trial.understood_lines import format_understood

    for config in space.float_networks():
        console.print(format_understood(understand(config)), markup=False, highlight=False, soft_wrap=True)


def check_temp_dir(folder: str | None, address: str | None) -> None:
    """Raise UserError unless Ray can put its sockets into a folder, whose paths the kernel limits to 107 characters."""
    if folder is None:
        return
    if address is not None:
        raise UserError("--ray-temp-dir is for the Ray that is started here; with --address it runs already")
    path = Path(folder).absolute()
    if len(os.fsencode(path)) > LONGEST_TEMP_DIR:
        raise UserError(
            f"--ray-temp-dir {folder}: its path is longer than {LONGEST_TEMP_DIR} bytes, too long for sockets"
        )
    existing = next(each for each in (path, *path.parents) if each.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise UserError(
            f"--ray-temp-dir {folder}: {existing} is not a folder that can be written to: {error}"
        ) from None


def check_data(configs: Sequence[TrialConfig], console: Console) -> None:
    """Decode every image of the configurations' data, once per data set, and list the broken ones.

    Raises:
        UserError: the data cannot be opened, or has broken images that are not to be skipped.
    """
    from pwfn.data.check import check_images
    from pwfn.trial.opening import open_data

    for config in {config.data: config for config in configs}.values():
        check_images(open_data(config), console)


def _search(space: SearchSpace, options: argparse.Namespace, console: Console) -> None:
    """Search, then print the front, what it answers and what to do with it."""
    with stopping.at_once("stopped before the search began"):
        from pwfn.sweep.cluster import prepare_environment

        prepare_environment(local=options.address is None)
        # Ray reads that environment when it is imported, and imports take seconds that a dry run need not spend.
        from pwfn.float_network import baseline_key
        from pwfn.results.store import ResultsStore
        from pwfn.search.study import SearchStudy
        from pwfn.sweep.sweep import search

    store = ResultsStore(options.results, options.study or space.name)
    stopped_because = search(
        SearchStudy(space, store),
        address=options.address,
        console=console,
        confirm=options.confirm,
        request=request_of(options),
    )
    if options.only_float:
        for key in {baseline_key(config): None for config in space.float_networks()}:
            card = store.read_record(f"baseline/{key}") or {}
            path = f"{options.results}/{store.study}/baseline/{key}.safetensors"
            accuracies = f"test {card['test_top1']:.2%}, validation {card['val_top1']:.2%}"
            console.print(f"float network: {accuracies}, {path}", markup=False, soft_wrap=True)
        return
    if stopped_because is not None:
        console.print(f"stopped: {stopped_because}; the same command goes on", markup=False, soft_wrap=True)
    finish(options.results, store.study, console)


def finish(results: str, study: str, console: Console) -> None:
    """Print the front, the verdict, the report's path and the command that exports a point."""
    import analysis

    loaded = analysis.load(analysis.study_folder(results, study))
    paths = analysis.write_report(loaded, analysis.study_folder(analysis.study_folder(results, study), "report"))
    for table in analysis.front_tables(loaded):
        console.print(table)
    notes = (f"note: {note}" for note in loaded.notes)
    missed = analysis.nearest_miss(loaded.trials, loaded.card.get("space", {}).get("constraints", {}))
    for line in (*analysis.verdicts(loaded), *([missed] if missed is not None else []), *notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(f"report: {path}", markup=False, soft_wrap=True)
    point = suggestion(loaded)
    if point is not None:
        out = f"{study}-{point}.pwfn.safetensors"
        export = command_line("export", "--results", results, "--study", study, "--trial", point, "--out", out)
        console.print(f"export a point: {export}", soft_wrap=True, markup=False)


def suggestion(study: Study) -> str | None:
    """Name the trial of the front to export: that with the fewest values among those at most one point below float.

    If all are further below the float network, it is the one with the fewest values of all. Several seeds of one
    configuration count as one by their mean, so that no trial is named because its seed was lucky.

    Returns:
        The name of the trial; None if the front is empty.
    """
    import analysis

    members = analysis.front(analysis.configurations(study.trials), study.objectives)
    close = members[members["val_top1"] >= members["float_val_top1"] - 0.01]
    ordered = (close if len(close) else members).sort_values("unique_values")
    return None if ordered.empty else str(ordered["trial_id"].iloc[0])
