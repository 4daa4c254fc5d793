"""Warm start: what is taken from other studies, what is not, and that it helps."""

import json
import statistics

import pytest
from ray.tune.search import Searcher
from test_optuna_search import accuracy_and_values, known_trials, sweep, toy_space, toy_study

from pwfn.errors import UserError
from pwfn.results.store import ResultsStore
from pwfn.search.warm_start import borrow, warm_start
from pwfn.sweep.searchers import OptunaSearch


def record(folder, name, space, trials, **columns):
    """Write the rows of a study, parameters and metrics given."""
    store = ResultsStore(str(folder), name)
    store.create()
    for number, (params, metrics) in enumerate(trials):
        config = space.trial_config(params, number)
        row = {"trial_id": f"{number:04d}", "number": number, "config_json": config.model_dump_json()}
        store.write_trial(row | metrics | columns)
    return f"{folder}/{name}"


def taught(folder, space, sources):
    """Begin a study with a warm start."""
    study = toy_study(folder, space)
    return study, warm_start(study, sources)


def test_says_what_it_takes_and_what_it_leaves(tmp_path):
    space, trials = toy_space(), known_trials(6)
    unfinished = [(trials[0][0], {"state": "failed"}), (trials[1][0], trials[1][1] | {"unique_values": None})]
    again = [(trials[2][0], trials[2][1] | {"val_top1": 0.1})]
    outside = [(trials[3][0] | {"method.b": 12}, trials[3][1])]
    source = record(tmp_path, "old", space, [*trials, *unfinished, *again, *outside])
    study, lines = taught(tmp_path / "new", space, [source])
    assert lines == [
        "told 6 of 10 trials of old; 1 lie outside the space; 2 did not finish; 1 are known already",
    ]
    search = OptunaSearch(study)
    told = search.proposer.study.trials
    assert [trial.values for trial in told] == [[each["val_top1"], each["unique_values"]] for _, each in trials]
    assert [search.suggest(name)["number"] for name in "ab"] == [0, 1]


def test_other_settings_are_told_and_named(tmp_path):
    space, trials = toy_space(), known_trials(3)
    other = space.variation.fixed | {"training.batch_size": 32, "resources.cpus_per_worker": 2}
    elsewhere = toy_space(seed=9)
    elsewhere.variation.fixed.update(other)
    source = record(tmp_path, "old", elsewhere, trials)
    store = ResultsStore(str(tmp_path), "old")
    for row in store.read_trials():
        config = json.loads(row["config_json"])
        del config["training"]["weight_decay"]  # an older program did not know it
        store.write_trial(row | {"config_json": json.dumps(config)})
    loan = borrow(space, [source])
    assert loan.lines == [
        "told 3 of 3 trials of old",
        "trials of old were run with other settings: training.batch_size 32 instead of 128",
    ]


def test_a_resume_tells_the_same_without_the_other_folder(tmp_path):
    space = toy_space("nsga2", trials=14)
    source = record(tmp_path, "old", space, known_trials(12))
    study, lines = taught(tmp_path / "new", space, [source, source])
    assert lines == ["told 12 of 12 trials of old"]
    record(tmp_path, "old", space, known_trials(20))
    assert warm_start(study, [source]) == [], "what was taken stays as it was"
    undisturbed, _ = taught(tmp_path / "undisturbed", space, [source + "/"])
    undisturbed.store.write_warm_start(study.store.read_warm_start())
    (tmp_path / "old").rename(tmp_path / "moved")
    assert sweep(tmp_path / "new", space, lost_every=1) == sweep(tmp_path / "undisturbed", space)


def test_several_folders_join(tmp_path):
    space, trials = toy_space(), known_trials(6)
    sources = [record(tmp_path, "one", space, trials[:4]), record(tmp_path, "two", space, trials[2:])]
    study, lines = taught(tmp_path / "new", space, sources)
    assert lines == ["told 4 of 4 trials of one", "told 2 of 4 trials of two; 2 are known already"]
    assert len(OptunaSearch(study).proposer.study.trials) == 6


@pytest.mark.parametrize("begun", [False, True])
def test_refuses_what_it_cannot_take(tmp_path, begun):
    space = toy_space()
    study = toy_study(tmp_path / "new", space)
    source = f"{tmp_path}/none"
    expected = f"--warm-start {source}: there is no study"
    if begun:
        source = record(tmp_path, "old", space, known_trials(2))
        OptunaSearch(study).suggest("a")
        expected = f"--warm-start {source}: study toy has proposed 1 trials without it; begin another one with --study"
    with pytest.raises(UserError) as caught:
        warm_start(study, [source])
    assert str(caught.value) == expected
    assert study.store.read_warm_start() is None


@pytest.mark.slow
def test_a_warm_search_begins_nearer_to_the_optimum(tmp_path):
    """The mean loss of the first six proposals after the known good settings: every warm seed below every cold one."""
    source = record(tmp_path, "old", toy_space(), known_trials(60))
    distances = {"cold": [], "warm": []}
    for seed in range(5):
        space = toy_space("tpe", trials=8, seed=seed, objectives={"val_top1": "maximize"})
        for kind in distances:
            study = toy_study(tmp_path / f"{kind}-{seed}", space)
            if kind == "warm":
                warm_start(study, [source])
            proposals = first_proposals(OptunaSearch(study))
            losses = [1 - accuracy_and_values(params)["val_top1"] for params in proposals[2:]]
            distances[kind].append(statistics.mean(losses))
    assert max(distances["warm"]) < min(distances["cold"]), distances


def first_proposals(search):
    proposals = []
    while (proposal := search.suggest(str(len(proposals)))) != Searcher.FINISHED:
        search.on_trial_complete(str(len(proposals)), accuracy_and_values(proposal["params"]))
        proposals.append(json.loads(json.dumps(proposal["params"])))
    return proposals
