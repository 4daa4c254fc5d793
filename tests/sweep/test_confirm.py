"""Replicates of the front: which trials, which seeds, written before they start, resumed."""

import pytest
from ray.tune.search import Searcher
from test_optuna_search import KNOWN, accuracy_and_values, toy_space, toy_study

from pwfn.float_network import baseline_key
from pwfn.sweep.confirm import Confirmation
from pwfn.sweep.searchers import OptunaSearch


@pytest.fixture
def study(tmp_path):
    """Five trials: 0 and 3 are on the front, 2 only without the bound; 1 is dominated, 4 failed."""
    study = toy_study(tmp_path, toy_space(trials=5, constraints={"unique_values": {"max": 100}}))
    for number, change in enumerate([{}, {"training.lr": 0.1}, {"method.b": 8}, {"method.b": 6}, {"method.b": 3}]):
        params = KNOWN | change
        study.store.write_proposal(f"{number:04d}", {"number": number, "trial_id": f"{number:04d}", "params": params})
        write_row(study, f"{number:04d}", number, params, state="failed" if number == 4 else "complete")
    return study


def write_row(study, trial_id, number, params, state="complete"):
    study.store.write_trial(accuracy_and_values(params) | {"trial_id": trial_id, "number": number, "state": state})


def suggested(search):
    found = []
    while (proposal := search.suggest(str(len(found)))) != Searcher.FINISHED:
        found.append(proposal)
    return found


def test_each_trial_on_the_front_runs_again(study):
    search = Confirmation(study, 2)
    assert search.num_left == 4
    replicates = suggested(search)
    assert [each["trial_id"] for each in replicates] == ["0000-r1", "0000-r2", "0003-r1", "0003-r2"]
    assert replicates == [each for each in study.store.read_proposals() if "replicate" in each]
    assert [study.trial(each).number for each in replicates] == [0, 0, 3, 3]


def test_only_the_seed_differs(study):
    original, *_ = study.proposals()
    replicates = suggested(Confirmation(study, 3))[:3]
    configs = [study.trial(each).config for each in (original, *replicates)]
    assert len({config.seed for config in configs}) == 4
    assert len({config.model_copy(update={"seed": 0}).model_dump_json() for config in configs}) == 1
    assert len({(baseline_key(config), config.data.split_seed) for config in configs}) == 1


def test_what_has_ended_does_not_run_again_and_more_can_be_added(study):
    first = suggested(Confirmation(study, 1))
    write_row(study, "0000-r1", 0, first[0]["params"])
    assert [each["trial_id"] for each in suggested(Confirmation(study, 1))] == ["0003-r1"]
    assert [each["trial_id"] for each in suggested(Confirmation(study, 2))] == ["0003-r1", "0000-r2", "0003-r2"]


def test_the_means_decide_who_is_on_the_front(study):
    """Trial 0 had luck: with its replicate it is worse than trial 1, which so far nobody ran again."""
    suggested(Confirmation(study, 1))
    write_row(study, "0000-r1", 0, KNOWN | {"training.lr": 1.0})
    assert [each["trial_id"] for each in suggested(Confirmation(study, 1))] == ["0003-r1", "0001-r1"]
    write_row(study, "0001-r1", 1, KNOWN | {"training.lr": 0.1})
    write_row(study, "0003-r1", 3, KNOWN | {"method.b": 6})
    assert Confirmation(study, 1).num_left == 0


def test_a_replicate_that_was_begun_runs_although_its_trial_has_left_the_front(study):
    suggested(Confirmation(study, 2))
    write_row(study, "0000-r1", 0, KNOWN | {"training.lr": 1.0})
    names = [each["trial_id"] for each in suggested(Confirmation(study, 2))]
    assert names == ["0000-r2", "0003-r1", "0003-r2", "0001-r1", "0001-r2"]


def test_a_failed_replicate_counts_for_nothing_and_does_not_run_again(study):
    suggested(Confirmation(study, 1))
    write_row(study, "0000-r1", 0, KNOWN, state="failed")
    assert [each["trial_id"] for each in suggested(Confirmation(study, 1))] == ["0003-r1"]


def test_they_are_none_of_the_trials_of_the_search(study):
    write_row(study, "0000-r1", 0, suggested(Confirmation(study, 2))[0]["params"])
    search = OptunaSearch(study)
    assert search.num_left == 0
    assert len(search.proposer.study.trials) == 5
    assert search.suggest("a") == Searcher.FINISHED


def test_nothing_is_proposed_once_it_is_stopped(study):
    search = Confirmation(study, 2)
    search.suggest("a")
    search.stop()
    assert search.suggest("b") == Searcher.FINISHED


def test_without_a_front_there_is_nothing_to_confirm(tmp_path):
    assert suggested(Confirmation(toy_study(tmp_path, toy_space()), 2)) == []
