"""Of the networks on disk only those of the best trials stay, and of what crashes left nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pwfn.results.store import ResultsStore
from pwfn.search.study import SearchStudy
from pwfn.space.declaration import Origin
from pwfn.space.space import SearchSpace
from pwfn.sweep.retention import Retention

FRONT = [(0.99, 60), (0.98, 40), (0.97, 30), (0.95, 20), (0.90, 10)]
DOMINATED = [(0.97, 61), (0.90, 41), (0.89, 31), (0.85, 21), (0.80, 11)]


@pytest.fixture
def store(tmp_path):
    store = ResultsStore(str(tmp_path), "toy")
    store.create()
    return store


def study(store, keep, **parts):
    declared = {"fixed": {"data": {"name": "digits"}}, "search": {"keep_models": keep}, **parts}
    return SearchStudy(SearchSpace.read("toy", declared, Origin("toy.yaml")), store)


def begin(store, keep, **parts):
    return Retention(study(store, keep, **parts), store.read_trials())


def end_trial(store, number, point, num_bytes=100, replicate="", **columns):
    """Write what a trial leaves when it ends, and give it as Tune tells of it."""
    trial_id = f"{number:04d}{replicate}"
    accuracy, values = point
    row = {"trial_id": trial_id, "state": "complete", "val_top1": accuracy, "unique_values": values}
    store.write_model(trial_id, bytes(num_bytes))
    store.write_trial({**row, "size_bytes": num_bytes, **columns})
    return SimpleNamespace(config={"trial_id": trial_id})


def run(store, keep, points, **parts):
    """A sweep's ends of trials, one after the other."""
    retention = begin(store, keep, **parts)
    for number, point in enumerate(points):
        retention.on_trial_complete(0, [], end_trial(store, number, point))
    return retention


def kept(store):
    return sorted(int(trial_id) for trial_id in store.model_sizes())


@pytest.mark.parametrize("seed", range(3))
def test_the_front_stays_and_the_rest_goes(store, seed):
    points = [*FRONT, *DOMINATED]
    order = np.random.default_rng(seed).permutation(len(points))
    retention = run(store, 5, [points[index] for index in order])
    assert [points[order[number]] for number in kept(store)] == [points[i] for i in order if i < 5]
    assert retention.summary == "kept 5 networks (500 bytes), deleted 5; --set search.keep_models=null keeps all"


def test_near_the_front_comes_next(store):
    run(store, 7, [*DOMINATED, *FRONT, (0.1, 90), (0.1, 91)])
    assert len(kept(store)) == 7
    assert set(range(5, 10)) < set(kept(store)) < set(range(10))


@pytest.mark.parametrize("seed", range(3))
def test_a_front_that_is_too_long_keeps_its_spread(store, seed):
    order = np.random.default_rng(seed).permutation(40)
    run(store, 5, [(0.5 + index / 100, int(index)) for index in order])
    left = sorted(order[number] for number in kept(store))
    assert (left[0], left[-1]) == (0, 39)
    assert np.diff(left).max() <= 14  # 10 would be even


def test_null_keeps_all(store):
    retention = run(store, None, [*FRONT, *DOMINATED])
    assert kept(store) == list(range(10))
    assert retention.summary == "kept 10 networks (1.0 kB)"


def test_constraints_come_first(store):
    run(store, 2, FRONT, constraints={"val_top1": {"max": 0.96}})
    assert kept(store) == [3, 4]


def test_a_sweep_that_goes_on_keeps_what_one_sweep_would(store, tmp_path):
    points = [*DOMINATED, *FRONT]
    run(store, 3, points[:7])
    retention = begin(store, 3)
    for number, point in enumerate(points[7:], start=7):
        retention.on_trial_complete(0, [], end_trial(store, number, point))
    other = ResultsStore(str(tmp_path / "other"), "toy")
    other.create()
    run(other, 3, points)
    assert kept(store) == kept(other)


def test_a_smaller_bound_takes_effect_at_the_start(store):
    run(store, None, [*DOMINATED, *FRONT])
    retention = begin(store, 5)
    assert kept(store) == list(range(5, 10))
    assert retention.num_deleted == 5


def test_replicates_take_the_room_left_in_the_order_of_their_trials(store):
    retention = run(store, 7, FRONT)
    lucky = [(1.0, 5), (0.999, 6)]  # both dominate all that was searched
    for replicate in ("-r1", "-r2"):
        for number in (3, 1):
            point = lucky[0 if number == 3 else 1]
            retention.on_trial_complete(0, [], end_trial(store, number, point, replicate=replicate))
    searched = [f"{number:04d}" for number in range(5)]
    assert sorted(store.model_sizes()) == sorted([*searched, "0001-r1", "0003-r1"])
    begin(store, 6)
    assert sorted(store.model_sizes()) == sorted([*searched, "0001-r1"]), "its trial spreads the front more"
    begin(store, 4)
    assert len(store.model_sizes()) == 4
    assert not any("-r" in trial_id for trial_id in store.model_sizes())


def test_rows_are_never_touched(store):
    run(store, 1, FRONT)
    assert len(store.read_trials()) == 5
    assert kept(store) == [0]


def test_what_has_not_ended_stays(store):
    store.write_model("0007", b"written just before the crash")
    store.write_checkpoint("0007", b"state")
    store.write_micro_batches("0007", 2)
    begin(store, 1)
    assert kept(store) == [7]
    assert store.read_checkpoint("0007") == b"state"
    assert store.read_micro_batches("0007") == 2


def test_leftovers_of_crashes_go_at_the_start(store):
    end_trial(store, 0, FRONT[0])
    end_trial(store, 1, (None, None), state="failed")  # between its network and its row something failed
    store.write_checkpoint("0000", b"state")
    store.write_attempts("0000", {"attempts": []})
    store.write_micro_batches("0000", 2)
    half = Path(store.results, "toy", "checkpoints", ".0003.0123456789abcdef.tmp")
    half.write_bytes(b"half")
    store.clear_leftovers({row["trial_id"] for row in store.read_trials()})
    begin(store, 50)
    assert kept(store) == [0]
    assert not list(Path(store.results, "toy", "checkpoints").iterdir())
    assert not list(Path(store.results, "toy", "attempts").iterdir())


def test_a_trial_without_a_network_changes_nothing(store):
    retention = run(store, 1, FRONT[:1])
    store.write_trial({"trial_id": "0001", "state": "pruned", "val_top1": 1.0, "unique_values": 2})
    for trial_id in ("0001", "0002"):  # one that was pruned, and one without a row
        retention.on_trial_complete(0, [], SimpleNamespace(config={"trial_id": trial_id}))
    assert kept(store) == [0]
