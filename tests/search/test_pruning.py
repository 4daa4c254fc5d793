"""Who goes on at a rung, against its definition."""

import math

import pytest

from pwfn.search.pruning import Referee
from pwfn.space.declaration import PruningConfig

OBJECTIVES = {"val_top1": "maximize", "unique_values": "minimize"}


def make_referee(*, grace_rounds=1, reduction_factor=2.0, batch=None, violation=lambda row: 0.0):
    config = PruningConfig(grace_rounds=grace_rounds, reduction_factor=reduction_factor)
    return Referee(config, OBJECTIVES, violation, batch)


def row(number, val_top1, unique_values, index=0, method="pwfn", fraction=0.5):
    trial = {"trial_id": f"{number:04d}", "number": number, "method": method, "round": index, "fraction": fraction}
    return {**trial, "val_top1": val_top1, "unique_values": unique_values, "entropy_bits": math.log2(unique_values)}


def test_a_dominated_trial_ends_and_one_that_dominates_goes_on():
    referee = make_referee()
    assert referee.goes_on(row(0, 0.9, 20))
    assert referee.goes_on(row(1, 0.8, 30))  # only two have come so far: too few to judge
    assert not referee.goes_on(row(2, 0.7, 40))
    assert referee.goes_on(row(3, 0.95, 10))


def test_one_in_so_many_goes_on():
    referee = make_referee(reduction_factor=3)
    verdicts = [referee.goes_on(row(number, 0.9 - 0.01 * number, 10 + number)) for number in range(30)]
    assert verdicts == [True] * 3 + [False] * 27  # each is worse than all before it
    assert [referee.goes_on(row(30 + number, 0.95 + 0.001 * number, 9 - number)) for number in range(3)] == [True] * 3


def test_a_front_goes_on_whole():
    """However few go on, those that none dominates do, and so do those behind too few."""
    referee = make_referee(reduction_factor=4)
    front = [row(number, 0.5 + 0.001 * number, 20 + number) for number in range(0, 200, 10)]
    assert all(referee.goes_on(each) for each in front)
    behind = [{**each, "trial_id": f"b{each['number']}", "val_top1": each["val_top1"] - 0.001} for each in front]
    assert not any(referee.goes_on(each) for each in behind)
    few = make_referee(reduction_factor=2)
    for number in range(4):
        few.goes_on(row(number, 0.9, 20))
    verdicts = [few.goes_on(row(number, 0.8, 20)) for number in range(4, 9)]
    assert verdicts == [False] * 4 + [True], "4 of 9 are fewer than half"


def test_entropy_tells_of_values_that_are_not_fixed_yet():
    referee = make_referee()
    for number in range(4):
        referee.goes_on(row(number, 0.9, 20) | {"entropy_bits": 3.0})
    assert referee.goes_on(row(10, 0.9, 25) | {"entropy_bits": 2.0})
    assert not referee.goes_on(row(11, 0.9, 15) | {"entropy_bits": 4.0})


@pytest.mark.parametrize(("grace_rounds", "rungs"), [(1, [1, 3, 9]), (2, [2, 6]), (3, [3, 9]), (4, [4]), (20, [])])
def test_rungs_are_ever_farther_apart(grace_rounds, rungs):
    referee = make_referee(grace_rounds=grace_rounds)
    for number in range(200):
        for index in range(10):
            referee.goes_on(row(number, 0.9, 20, index=index))
    judged = [
        index + 1
        for index in range(10)
        if not referee.goes_on(row(999, 0.1, 99, index=index))
    ]  # fmt: skip
    assert judged == rungs


def test_only_trials_of_the_same_method_and_share_are_compared():
    referee = make_referee()
    for number in range(9):
        referee.goes_on(row(number, 0.9, 20))
    assert referee.goes_on(row(10, 0.1, 99, method="wfn"))
    assert referee.goes_on(row(11, 0.1, 99, fraction=0.6))
    assert not referee.goes_on(row(12, 0.1, 99))


def test_a_trial_that_violates_a_constraint_comes_behind_all_that_keep_it():
    referee = make_referee(violation=lambda row: max(0, 0.5 - row["val_top1"]))
    for number in range(4):
        referee.goes_on(row(number, 0.6 + 0.1 * number, 20 + 10 * number))
    assert not referee.goes_on(row(10, 0.4, 2))
    assert make_referee().goes_on(row(10, 0.4, 2))


def test_an_accuracy_that_is_not_a_number_is_the_worst():
    referee = make_referee()
    for number in range(3):
        referee.goes_on(row(number, 0.5, 20))
    assert not referee.goes_on(row(5, float("nan"), 20))


def test_what_an_earlier_run_has_seen_counts():
    rows = [row(number, 0.9, 20) for number in range(9)]
    asked, told = make_referee(), make_referee()
    for each in rows:
        asked.goes_on(each)
    told.recall(rows)
    for newcomer in (row(20, 0.8, 30), row(21, 0.95, 10), row(22, 0.2, 1)):
        assert asked.goes_on(newcomer) == told.goes_on(newcomer)


def test_asked_twice_a_trial_counts_once():
    """As after a retry."""
    referee = make_referee(reduction_factor=3)
    assert all(referee.goes_on(row(0, 0.1, 99)) for _ in range(20))


def test_with_batches_no_verdict_depends_on_the_order_of_arrival():
    rows = [row(number, [0.9, 0.5, 0.7, 0.8][number % 4] + 0.01 * number, 20 + number) for number in range(12)]

    def verdicts(order):
        referee = make_referee(batch=4)
        found = {}
        for start in (0, 4, 8):
            for position in order:
                number = start + position
                found[number] = referee.goes_on(rows[number])
        return found

    assert verdicts([0, 1, 2, 3]) == verdicts([3, 1, 0, 2]) == verdicts([2, 3, 1, 0])
    assert not all(verdicts([0, 1, 2, 3]).values())
