"""The measure of every disturbed sweep: the same trials, one after the other in this process, without Ray."""

from pathlib import Path

import torch
from test_trial import SPACE, go_on, result

from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.sweep.searchers import OptunaSearch
from pwfn.trial.run import run_trial


def run_alone(folder: Path, *overrides: str, trials: int = 3, name: str = "small") -> ResultsStore:
    """Run the trials of the small space."""
    space = SearchSpace.load(SPACE, overrides, trials=trials)
    study = open_study(space, ResultsStore(str(folder), name), command="test")
    searcher = OptunaSearch(study)
    for number in map(str, range(trials)):
        trial = study.trial(searcher.suggest(number))
        row = run_trial(trial, study.store, device=torch.device("cpu"), replicas=Replicas(), on_round=go_on)
        searcher.on_trial_complete(number, row)
    return study.store


def table(store: ResultsStore):
    """Every row of a study, without what a second run may change."""
    rows = store.read_trials()
    return result(rows), [result(store.read_rounds(row["trial_id"])) for row in rows]
