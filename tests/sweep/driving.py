"""Drivers of one study in processes of their own: real leases, proposals and rows, without Ray and without training."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.study import SearchStudy, code_card
from pwfn.space.space import SearchSpace
from pwfn.sweep.by_hand import config_of_space
from pwfn.sweep.hand_numbers import take_up
from pwfn.sweep.opening import Request, check_request, open_together
from pwfn.sweep.ownership import owned
from pwfn.sweep.searchers import OptunaSearch
from pwfn.trial.rows import trial_row

SPACE = Path(__file__).parents[1] / "small_space.yaml"
_processes = multiprocessing.get_context("forkserver")  # it imports once, and has no threads when it forks
code_card()  # read the sources once, too


def study_of(results: str, seed: int = 1, trials: int = 12) -> SearchStudy:
    space = SearchSpace.load(SPACE, ["search.sampler=tpe"], seed=seed, trials=trials)
    return SearchStudy(space, ResultsStore(results, "small"))


def drive(results: str, seed: int, join: bool, seconds: float = 0.05, slots: int = 2) -> str:
    """Run a study as a sweep does, with a row for each proposal; give what was said, or the refusal."""
    said: list[str] = []
    study, request = study_of(results, seed), Request(command="test", join=join)
    try:
        check_request(study, request)
        with owned(study.store, join=join, say=said.append) as ownership:
            open_together(study, request, ownership, {}, said.append)
            searcher = OptunaSearch(study, study.store.read_trials(), ownership)
            running: dict[str, dict[str, Any]] = {}
            for number in range(10_000):
                proposal = searcher.suggest(str(number))
                if isinstance(proposal, dict):
                    running[str(number)] = proposal
                if len(running) == slots or (running and not isinstance(proposal, dict)):
                    time.sleep(seconds)
                    name, done = running.popitem()
                    searcher.on_trial_complete(name, write_row(study, done))
                elif proposal == "FINISHED":
                    break
    except UserError as error:
        return f"refused: {error}"
    return "\n".join(["ended", *said])


def write_row(study: SearchStudy, proposal: dict[str, Any]) -> dict[str, Any]:
    params = proposal["params"]
    numbers = {"state": "complete", "val_top1": 1 / params["method.b"], "unique_values": 2 ** params["method.b"]}
    study.store.write_trial(trial_row(study.trial(proposal), numbers))
    return numbers


def take_number(results: str, seed: int, wanted: int = 3) -> str:
    """Begin a trial by hand, and stay alive until as many as are wanted have begun."""
    store = ResultsStore(results, "by-hand")
    store.create()
    number = take_up(config_of_space(SearchSpace.load(SPACE, seed=seed)), store)
    while len(store.proposal_ids()) < wanted:
        time.sleep(0.01)
    return str(number)


def prepare() -> None:
    """Start the process from which the others are forked; in Python 3.11 it does not get the path of this one."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    _processes.set_forkserver_preload(["driving"])
    forkserver.ensure_running()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def at_once(function: Callable[..., str], *arguments: tuple[Any, ...]) -> list[str]:
    """Call a function in as many processes as there are tuples of arguments, all at the same moment."""
    queue, barrier = _processes.Queue(), _processes.Barrier(len(arguments))
    processes = [
        _processes.Process(target=_call, args=(function, each, queue, barrier, index))
        for index, each in enumerate(arguments)
    ]
    for process in processes:
        process.start()
    answers = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [answers[index] for index in range(len(arguments))]


def _call(function: Callable[..., str], arguments: tuple[Any, ...], queue: Any, barrier: Any, index: int) -> None:
    barrier.wait(60)
    queue.put((index, function(*arguments)))


def start(function: Callable[..., str], *arguments: Any) -> Any:
    """Call a function in another process; give that process."""
    process = _processes.Process(target=function, args=arguments)
    process.start()
    return process


def agrees(study: SearchStudy) -> bool:
    """Whether there is one row for each number, made from the proposal of that number."""
    rows = {row["trial_id"]: row for row in study.store.read_trials()}
    proposals = study.proposals()
    assert [each["number"] for each in proposals] == list(range(study.space.search.trials))
    assert rows.keys() == {each["trial_id"] for each in proposals}
    return all(
        rows[each["trial_id"]]["config_json"] == study.trial(each).config.model_dump_json()
        and json.loads(rows[each["trial_id"]]["config_json"])["method"]["b"] == each["params"]["method.b"]
        for each in proposals
    )
