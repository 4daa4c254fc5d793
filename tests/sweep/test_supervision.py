"""When a sweep ends before its planned trials have, by what its trials report."""

import time
from pathlib import Path

import pytest

from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace
from pwfn.sweep.supervision import Supervisor


@pytest.fixture
def supervisor(tmp_path):
    space = SearchSpace.load(Path(__file__).parents[1] / "small_space.yaml", ["search.gpu_hours=2"])
    study = open_study(space, ResultsStore(str(tmp_path), "small"), command="test")
    return Supervisor(study, desk=None, stop_proposing=lambda: None, since=time.monotonic(), ended=[])


class Ended:
    """What Tune shows of a trial that has ended."""

    def __init__(self, state, failure_class=None, gpu_seconds=0.0):
        message = None if failure_class is None else f"message of {failure_class}"
        self.last_result = {"state": state, "failure_class": failure_class, "failure_message": message}
        self.last_result["gpu_seconds"] = gpu_seconds


def end(supervisor, *args, **kwargs):
    supervisor.on_trial_complete(iteration=0, trials=[], trial=Ended(*args, **kwargs))


def test_gpu_hours_of_all_trials_count_pruned_and_failed_ones_too(supervisor):
    end(supervisor, "complete", gpu_seconds=3000)
    end(supervisor, "pruned", gpu_seconds=3000)
    supervisor.look_at_budget()
    assert supervisor.stopped_because is None
    end(supervisor, "failed", "oom", gpu_seconds=1300)
    supervisor.look_at_budget()
    assert supervisor.stopped_because == "the budget of 2 GPU hours is used up"


@pytest.mark.parametrize("otherwise", [("complete", None), ("pruned", None), ("failed", "oom")])
def test_trials_that_fail_alike_end_the_sweep_unless_one_ended_otherwise(supervisor, otherwise):
    end(supervisor, *otherwise)
    for _ in range(10):
        end(supervisor, "failed", "nan")
    assert supervisor.error is None


def test_an_interrupted_trial_has_not_ended(supervisor):
    end(supervisor, "interrupted")
    for _ in range(4):
        end(supervisor, "failed", "nan")
    assert not supervisor.stop_all()
    end(supervisor, "failed", "nan")
    assert supervisor.stop_all()
    assert "the first 5 trials all failed alike (nan), the last one with: message of nan" in supervisor.error


def test_input_that_no_trial_can_use_ends_the_sweep_at_once(supervisor):
    end(supervisor, "complete")
    end(supervisor, "failed", "user")
    assert supervisor.error == "message of user"
