"""Compares searches by the hypervolume that they reach in equal training seconds, over several seeds.

    python tests/benchmarks/samplers.py --results results/samplers                                       the digits
    python tests/benchmarks/samplers.py --space pwfn_cifar10 --only random tpe gp --seeds 3 --seconds 400 \
        --set training.steps_per_epoch=3 ...                                                             any space

Every contestant searches the same space from nothing (the space's start settings are left out), once per seed. All call
the same function, which runs one trial at a time in this process, without Ray. Those with `stages` leave out the
space's `method.num_values`: each of their trials trains 16, 8, 4, 3 and 2 values one after the other, and leaves five
networks. "Optuna alone" is `create_study` and `optimize` with Optuna's defaults. NePS is told the objectives after 1, 3
and 9 ninths of a trial's rounds. It is no dependency of this project and wants other versions of packages that both
use: install it into an environment of its own, beside this project, and run its contestants there with the same
`--results`, from which the table of all contestants is made.

Seconds are CPU seconds of all trials, pruned ones too, as the machine may be busy. What the proposals cost is printed
for each search and is not in them. Cells are mean +- standard deviation over the seeds; the difference from the first
contestant is taken within each seed, and has its standard error. The second table has the same networks, the validation
front, but measures them on the test images, which no search sees. Searches that are in `--results` are read from there:
the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout that is not installed

import numpy as np
import optuna
import pandas as pd
import torch
from printed import conditions, spread, standard_error

import analysis
from analysis.front import Objectives
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.learning import lesson
from pwfn.search.proposer import Proposer
from pwfn.search.pruning import referee_of
from pwfn.search.study import open_study
from pwfn.search.suggestions import suggest
from pwfn.space.declaration import PruningConfig
from pwfn.space.domains import Choice
from pwfn.space.space import SearchSpace
from pwfn.space.variation import Params
from pwfn.sweep.by_hand import start_like
from pwfn.trial.decision import Decision, RoundListener
from pwfn.trial.float_network import ensure_baseline
from pwfn.trial.rows import Row, Trial
from pwfn.trial.run import run_trial

CONTESTANTS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "nsga2": {"sampler": "nsga2"},
    "gp": {"sampler": "gp"},
    "tpe": {"sampler": "tpe"},
    "tpe, pruning": {"sampler": "tpe", "pruning": PruningConfig()},
}
STAGED: dict[str, dict[str, Any]] = {
    "tpe, stages": {"sampler": "tpe", "stage": "hypervolume"},
    "tpe, pruning, stages": {"sampler": "tpe", "pruning": PruningConfig(), "stage": "hypervolume"},
}
STAGES = ("method.num_values=null", "method.stages=[16,8,4,3,2]")
OPTUNA = "Optuna alone"
NEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "NePS, MO-ASHA": ("moasha", {}),
    "NePS, MO-Hyperband": ("mo_hyperband", {}),
    "NePS, PriMO": ("primo", {"prior_centers": {}}),  # nobody has any prior here
}
NINTHS = 9
"""NePS counts a trial's rounds in ninths of them, so that its factor of three compares after 1, 3 and 9."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Columns of the table, as shares of the seconds that every search has spent."""
NO_LIMIT = 1_000_000
CPU = torch.device("cpu")


def main() -> None:
    """Search, and print the tables."""
    names = [*CONTESTANTS, *STAGED, OPTUNA, *NEPS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default=Path(__file__).with_suffix(".yaml"), help="the space that is searched")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", dest="overrides")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=50, help="CPU seconds in trials, per search")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="CONTESTANT")
    parser.add_argument("--results", help="folder that keeps the searches, and goes on with them (default: temporary)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(f"{conditions()}; {arguments.seeds} seeds; {Path(arguments.space).stem}", *arguments.overrides)
    with tempfile.TemporaryDirectory() as scratch:
        results = arguments.results or scratch
        found: dict[str, list[pd.DataFrame]] = {name: [] for name in arguments.only}
        for seed in range(arguments.seeds):  # outside, so that all contestants meet the same load of the machine
            for name in arguments.only:
                stages = STAGES if name in STAGED else ()
                space = SearchSpace.load(arguments.space, [*arguments.overrides, *stages])
                found[name].append(searched(space_of(space, name, seed, NO_LIMIT), results, name, arguments.seconds))
    objectives = space.objectives
    show(found, objectives, arguments.seconds)
    show(found, objectives, arguments.seconds, judged=by_test(objectives))


def space_of(space: SearchSpace, contestant: str, seed: int, num_trials: int) -> SearchSpace:
    """Let a contestant search a space from nothing."""
    changes = {**{**CONTESTANTS, **STAGED}.get(contestant, {}), "seed": seed, "trials": num_trials}
    return dataclasses.replace(space, start_with=(), search=space.search.model_copy(update=changes))


def by_test(objectives: Objectives) -> Objectives:
    """Return the objectives with the test images in the place of the validation images."""
    return {name.replace("val_", "test_"): direction for name, direction in objectives.items()}


def searched(space: SearchSpace, results: str, contestant: str, seconds: float) -> pd.DataFrame:
    """Run one search, or read it if it is kept; return the networks that its trials left, with their seconds."""
    name = f"{contestant.replace(', ', '-').replace(' ', '-')}-{space.search.seed}"
    kept = Path(results, f"{name}.csv")
    if not kept.exists():
        if contestant in NEPS and importlib.util.find_spec("neps") is None:
            sys.exit(f"{contestant}: needs NePS; pip install neural-pipeline-search in an environment of its own")
        shutil.rmtree(Path(results, name), ignore_errors=True)  # of a search that was interrupted
        origin, store = ResultsStore(results, f"float-{space.search.seed}"), ResultsStore(results, name)
        origin.create()
        open_study(space, store, command="benchmark")
        for config in space.float_networks():
            ensure_baseline(config, origin, CPU, Replicas())
            start_like(origin, config, store)
        search = Search(space, store, seconds)
        started = time.process_time()
        if contestant in NEPS:
            neps_alone(search, *NEPS[contestant])
        elif contestant == OPTUNA:
            optuna_alone(search)
        else:
            own(search)
        beside = time.process_time() - started - search.spent
        print(
            f"{name}: {search.spent:.0f} s in {search.num_begun} trials, {beside:.1f} s beside them",
            file=sys.stderr,
            flush=True,
        )
        columns = ["trial_id", "state", "seconds", *dict.fromkeys([*space.objectives, *by_test(space.objectives)])]
        pd.DataFrame(search.points).reindex(columns=columns).to_csv(kept, index=False)
    return pd.read_csv(kept, dtype={"trial_id": str})


@dataclasses.dataclass
class Search:
    """Runs the trials of one search, one at a time, and counts their seconds; who proposes them is not its business."""

    space: SearchSpace
    store: ResultsStore
    seconds: float
    """CPU seconds that the trials may spend together; the one in which they end runs to its end."""
    spent: float = 0.0
    points: list[Row] = dataclasses.field(default_factory=list)
    """Rows of the networks that trials have left, each with the `seconds` that were spent when it was there."""
    num_begun: int = 0

    @property
    def is_over(self) -> bool:
        return self.spent >= self.seconds

    def run(self, number: int, params: Params, on_round: RoundListener) -> Row | None:
        """Run a trial, or go on with one that was stopped; return its row, or None if it is told to stop."""
        trial = Trial(f"{number:04d}", number, self.store.study, self.space.trial_config(params, number))
        proposal = {"trial_id": trial.trial_id, "number": number, "params": params}
        if self.store.read_proposal(trial.trial_id) is None:
            self.store.create_proposal(trial.trial_id, proposal)
            self.num_begun += 1
        before, started = self.spent, time.process_time()
        when: dict[int, float] = {}

        def now() -> float:
            return before + time.process_time() - started

        def listen(row: Row, summary: str) -> Decision:
            when[row["stage"]] = now()  # the last of these is the end of the stage
            return on_round(row, summary)

        ended = run_trial(trial, self.store, device=CPU, replicas=Replicas(), on_round=listen)
        self.spent = now()
        if ended is not None:
            points = self.store.read_points(trial.trial_id)
            early = [{**point, "seconds": when[point["stage"]]} for point in points[:-1]]
            self.points += [*early, {**points[-1], "seconds": self.spent}]
        return ended


def own(search: Search) -> None:
    """Let the project's own proposer and referee search, as a sweep with one slot does."""
    proposer, referee = Proposer(search.space), referee_of(search.space)

    def judge(row: Row, summary: str) -> Decision:
        return Decision.CONTINUE if referee is None or referee.goes_on(row) else Decision.PRUNE

    while not search.is_over:
        proposal = proposer.ask()
        assert proposal is not None
        row = search.run(proposal.number, proposal.params, judge)
        assert row is not None
        proposer.tell(proposal.number, row["state"], lesson(search.space, search.store, row))


def optuna_alone(search: Search) -> None:
    """Let Optuna search with its defaults; its sampler is given a seed."""
    study = optuna.create_study(directions=list(search.space.objectives.values()))
    study.sampler = type(study.sampler)(seed=search.space.search.seed)

    def objective(trial: optuna.Trial) -> list[float]:
        row = search.run(trial.number, suggest(search.space, trial), go_on)
        assert row is not None
        return [row.get(name, float("nan")) for name in search.space.objectives]  # NaN: Optuna counts it as failed

    def end(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if search.is_over:
            study.stop()

    study.optimize(objective, callbacks=[end])


def neps_alone(search: Search, algorithm: str, options: dict[str, Any]) -> None:
    """Let NePS search: it is told the objectives after 1, 3 and 9 ninths of the rounds, on the hypervolume's scales.

    A configuration that it takes up again goes on from its last round.
    """
    import neps  # no dependency: imported only for its own contestants

    seed = search.space.search.seed
    random.seed(seed)
    np.random.seed(seed)  # NePS draws from the global generators
    torch.manual_seed(seed)
    stopped: dict[str, int] = {}
    """Numbers of trials that may go on, by their parameters; a setting that is proposed anew is a new trial."""

    def evaluate(ninths: int, **config: Any) -> dict[str, Any]:
        params = search.space.variation.walk(lambda name, _: config[name])
        number = stopped.pop(str(params), search.num_begun)
        last: Row = {}

        def stop(row: Row, summary: str) -> Decision:
            last.update(row)
            return Decision.STOP if NINTHS * (row["round"] + 1) >= ninths * row["num_rounds"] else Decision.CONTINUE

        before = search.spent
        ended = search.run(number, params, stop)
        if ended is None:
            stopped[str(params)] = number
        told = {**last, "state": "complete"} if ended is None else ended
        return {"objective_to_minimize": costs(told, search.space.objectives), "cost": search.spent - before}

    domains = {name: varied.domain for name, varied in search.space.variation.vary.items()}
    parameters = {
        name: neps.Categorical(domain.options)
        if isinstance(domain, Choice)
        else (neps.Integer if domain.is_int else neps.Float)(domain.low, domain.high, log=domain.is_log)
        for name, domain in domains.items()
    }
    fidelity = {"ninths": neps.Fidelity(neps.Integer(1, NINTHS))}
    with tempfile.TemporaryDirectory() as folder:
        neps.run(
            evaluate,
            type("Space", (neps.PipelineSpace,), {**parameters, **fidelity})(),
            root_directory=Path(folder, "search"),  # NePS makes it
            optimizer=(algorithm, options),
            worker_cost_to_spend=search.seconds,
        )


def costs(row: Row, objectives: Objectives) -> list[float]:
    """Return how far a row is from the best value of each objective, 0 to 1 on the scales of the hypervolume."""
    frame = pd.DataFrame([dict.fromkeys(objectives) | row])  # a failed trial has none of them
    return [1 - analysis.hypervolume(frame, {name: direction}).share for name, direction in objectives.items()]


def go_on(row: Row, summary: str) -> Decision:
    """Let a trial run to its end."""
    return Decision.CONTINUE


def show(
    found: dict[str, list[pd.DataFrame]], objectives: Objectives, budget: float, judged: Objectives | None = None
) -> None:
    """Print each contestant's hypervolume after equal seconds, and how many whole networks it has by the end.

    Args:
        found: the searches of each contestant: rows with `state`, `seconds` and metrics.
        objectives: those of the searches.
        budget: seconds that every search has spent.
        judged: objectives by which the networks on the front are measured; None: those of the searches.
    """
    judged = judged or objectives
    among = pd.concat([rows for searches in found.values() for rows in searches])
    print(f"\nhypervolume by {', '.join(judged)} after a share of {budget:.0f} trial seconds")
    first = next(iter(found))
    print(f"| search | {' | '.join(f'{share:.4g}' for share in SHARES)} | minus {first} | networks by then |")
    print(f"|{'---|' * (len(SHARES) + 3)}")
    ends: dict[str, list[float]] = {}
    for name, searches in found.items():
        by_then = [[rows[rows["seconds"] <= share * budget] for share in SHARES] for rows in searches]
        fronts = [[analysis.front(part, objectives) for part in parts] for parts in by_then]
        shares = [[analysis.hypervolume(part, judged, among).share for part in parts] for parts in fronts]
        cells = [spread(column, "{:.4f}") for column in zip(*shares, strict=True)]
        ends[name] = [each[-1] for each in shares]
        gains = [ours - theirs for ours, theirs in zip(ends[name], ends[first], strict=True)]
        gain = f"{mean(gains):+.4f} +- {standard_error(gains):.4f}"
        complete = spread([float((parts[-1]["state"] == "complete").sum()) for parts in by_then], "{:.1f}")
        print(f"| {name} | {' | '.join(cells)} | {gain} | {complete} |")


if __name__ == "__main__":
    main()
