import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from pwfn.results.store import ResultsStore
from pwfn.search.declaration import Source
from pwfn.search.optuna_search import SAMPLERS, OptunaSearch, Proposer
from pwfn.search.space import SearchSpace
from pwfn.search.study import Study

NUM_TRIALS = 14
"""More than the ten random trials with which every sampler begins."""


def toy_space(sampler="tpe", trials=NUM_TRIALS, seed=0, objectives=None):
    declared = {
        "fixed": {"data": {"name": "digits"}},
        "vary": {
            "method.b": {"int": [3, 8]},
            "method.start_sigma": {"float": [0.5, 4]},
            "training.lr": {"log_float": [1e-4, 1e-1]},
            "training.optimizer": {"choice": ["sgd", "adam"]},
            "training.momentum": {"float": [0, 0.95], "when": {"training.optimizer": "sgd"}},
            "method.fractions": {"choice": [[0.5, 1.0], [0.2, 0.6, 1.0]]},
            "training.clip_norm": {"choice": [None, 1.0]},
        },
        "search": {"sampler": sampler, "trials": trials, "seed": seed},
        "objectives": objectives or {},
        "start_with": [{"method.fractions": [0.5, 1.0]}, {"method.fractions": [0.5, 1.0], "method.b": 3}],
    }
    return SearchSpace.read("toy", declared, Source("toy.yaml"))


def toy_study(folder, space):
    store = ResultsStore(str(folder), "toy")
    store.create()
    return Study(space, store)


def accuracy_and_values(params):
    """A toy trade-off: larger b costs values and gains accuracy."""
    loss = (params["method.start_sigma"] - 1) ** 2 / 20 + params["training.lr"]
    return {"state": "complete", "val_top1": params["method.b"] / 8 - loss, "unique_values": 2 ** params["method.b"]}


def search_all(proposer):
    proposals = []
    while (proposal := proposer.ask()) is not None:
        proposals.append(proposal)
        metrics = accuracy_and_values(proposal.params)
        proposer.tell(proposal.number, "complete", metrics)
    return proposals


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    """What holds for each sampler."""

    def test_searches_the_whole_space(self, sampler):
        space = toy_space(sampler)
        proposer = Proposer(space)
        proposals = search_all(proposer)
        assert [proposal.number for proposal in proposals] == list(range(NUM_TRIALS))
        assert [proposal.params for proposal in proposals[:2]] == space.start_settings()
        assert all(space.variation.contains(proposal.params) for proposal in proposals)
        assert {proposal.params["training.optimizer"] for proposal in proposals} == {"sgd", "adam"}
        assert len({json.dumps(proposal.params) for proposal in proposals}) >= NUM_TRIALS - 2  # a child may be a copy
        for proposal, trial in zip(proposals, proposer.study.trials, strict=True):
            told = accuracy_and_values(proposal.params)
            assert trial.values == [told["val_top1"], told["unique_values"]]

    def test_every_proposal_is_a_valid_trial(self, sampler):
        space = toy_space(sampler, trials=6)
        for number, params in search_all(Proposer(space)):
            config = space.trial_config(params, number)
            assert config.method.b == params["method.b"]
            assert list(config.method.fractions) == params["method.fractions"]

    def test_every_trial_ends(self, sampler):
        proposer = Proposer(toy_space(sampler))
        states = ["complete", "pruned", "failed"]
        while (proposal := proposer.ask()) is not None:
            proposer.tell(proposal.number, states[proposal.number % 3], accuracy_and_values(proposal.params))
        ended = [trial.state for trial in proposer.study.trials]
        assert ended == [[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL][n % 3] for n in range(NUM_TRIALS)]

    def test_several_at_once(self, sampler):
        proposer = Proposer(toy_space(sampler))
        while first := proposer.ask():
            second = proposer.ask()
            for proposal in (second, first):
                proposer.tell(proposal.number, "complete", accuracy_and_values(proposal.params))
        assert {trial.state for trial in proposer.study.trials} == {TrialState.COMPLETE}

    def test_a_saved_search_goes_on_as_if_nothing_had_happened(self, sampler, tmp_path):
        search = OptunaSearch(toy_study(tmp_path / "one", toy_space(sampler)))
        for number in range(11):
            proposal = search.suggest(f"tune-{number}")
            search.on_trial_complete(f"tune-{number}", accuracy_and_values(proposal["params"]))
        search.suggest("tune-11")
        (tmp_path / "snapshots").mkdir()
        search.save(str(tmp_path / "snapshots" / "search.pkl"))
        restored = OptunaSearch(toy_study(tmp_path / "other", toy_space(sampler, seed=1)))
        restored.restore(str(tmp_path / "snapshots" / "search.pkl"))
        for each in (search, restored):
            each.on_trial_complete("tune-11", {"state": "failed"})
        assert restored.suggest("tune-12") == search.suggest("tune-12")
        assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["search.pkl"]

    def test_gives_the_same_proposals_in_another_process(self, sampler):
        here = [list(proposal) for proposal in search_all(Proposer(toy_space(sampler, seed=3)))]
        code = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_optuna_search import Proposer, search_all, toy_space
print(json.dumps(search_all(Proposer(toy_space({sampler!r}, seed=3)))))
"""
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == here
        assert done.stderr in ("", f"{GP_NOTE}\n")
        assert [list(proposal) for proposal in search_all(Proposer(toy_space(sampler, seed=4)))] != here


GP_NOTE = "the gp sampler draws fields with conditions at random: training.momentum"


def test_gp_says_once_what_it_draws_at_random(caplog):
    search_all(Proposer(toy_space("gp")))
    assert [record.message for record in caplog.records] == [GP_NOTE]


def test_better_trials_attract_tpe():
    proposer = Proposer(toy_space("tpe", trials=60, objectives={"val_top1": "maximize"}))
    proposals = search_all(proposer)
    rates = sorted(proposal.params["training.lr"] for proposal in proposals[40:])
    assert rates[len(rates) // 2] < 10**-2.5, "half of the last trials should be in the better half of the log range"


class TestTell:
    @pytest.mark.parametrize(
        ("state", "metrics", "expected"),
        [
            ("complete", {"val_top1": 0.5, "unique_values": 30}, TrialState.COMPLETE),
            ("complete", {"val_top1": float("nan"), "unique_values": 30}, TrialState.FAIL),
            ("complete", {"val_top1": 0.5, "unique_values": float("inf")}, TrialState.FAIL),
            ("complete", {"val_top1": 0.5}, TrialState.FAIL),
            ("complete", {"val_top1": 0.5, "unique_values": None}, TrialState.FAIL),
            ("complete", {"val_top1": 0.5, "unique_values": "30"}, TrialState.FAIL),
            ("failed", {"val_top1": 0.5, "unique_values": 30}, TrialState.FAIL),
            ("failed", {}, TrialState.FAIL),
            ("pruned", {"val_top1": 0.5, "unique_values": 30}, TrialState.PRUNED),
        ],
    )
    def test_states(self, state, metrics, expected):
        proposer = Proposer(toy_space())
        proposer.tell(proposer.ask().number, state, metrics)
        (trial,) = [trial for trial in proposer.study.trials if trial.state != TrialState.WAITING]
        assert trial.state == expected
        assert trial.values == ([0.5, 30.0] if expected == TrialState.COMPLETE else None)

    def test_values_follow_the_declared_objectives(self):
        space = toy_space(objectives={"sparsity": "maximize", "entropy_bits": "minimize", "mean_order": "minimize"})
        proposer = Proposer(space)
        metrics = {"mean_order": 1.5, "entropy_bits": 3.0, "sparsity": 0.25, "val_top1": 0.9}
        proposer.tell(proposer.ask().number, "complete", metrics)
        maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        assert proposer.study.directions == [maximize, minimize, minimize]
        assert proposer.study.trials[0].values == [0.25, 3.0, 1.5]

    def test_a_second_end_is_ignored(self, caplog):
        proposer = Proposer(toy_space())
        number = proposer.ask().number
        proposer.tell(number, "failed", {})
        with caplog.at_level(logging.WARNING):
            proposer.tell(number, "complete", {"val_top1": 0.5, "unique_values": 30})
        assert proposer.study.trials[0].state == TrialState.FAIL
        assert caplog.messages == ["trial 0 is not open, so its end in state complete is not told"]


KNOWN = {
    "method.b": 4,
    "method.fractions": [0.2, 0.6, 1.0],
    "method.start_sigma": 1,
    "training.clip_norm": None,
    "training.lr": 0.001,
    "training.optimizer": "adam",
}


class TestAddFinished:
    def test_tells_a_trial_without_taking_a_number(self):
        proposer = Proposer(toy_space())
        assert proposer.add_finished(KNOWN, "complete", {"val_top1": 0.5, "unique_values": 30})
        assert proposer.add_finished(KNOWN, "pruned", {"val_top1": 0.5, "unique_values": 30})
        assert proposer.add_finished(KNOWN, "complete", {"val_top1": float("nan"), "unique_values": 30})
        told = [trial for trial in proposer.study.trials if trial.state != TrialState.WAITING]
        assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
        assert told[0].values == [0.5, 30.0]
        assert [proposal.number for proposal in search_all(proposer)] == list(range(NUM_TRIALS))

    @pytest.mark.parametrize(
        "change", [{"method.b": 9}, {"training.momentum": 0.5}, {"method.zero_rule": True}, {"training.optimizer": "x"}]
    )
    def test_leaves_out_trials_of_another_space(self, change):
        proposer = Proposer(toy_space())
        assert not proposer.add_finished(KNOWN | change, "complete", {"val_top1": 0.5, "unique_values": 30})
        assert not proposer.add_finished({"method.b": 4}, "complete", {"val_top1": 0.5, "unique_values": 30})
        assert proposer.study.trials == []

    def test_known_trials_teach_the_sampler(self):
        """Fifty known trials that are best at the smallest learning rates."""
        taught = Proposer(toy_space(trials=12, objectives={"val_top1": "maximize"}))
        for step in range(50):
            rate = 10 ** (-1 - 3 * step / 49)
            taught.add_finished(KNOWN | {"training.lr": rate}, "complete", {"val_top1": -rate})
        rates = sorted(proposal.params["training.lr"] for proposal in search_all(taught)[2:])
        assert rates[5] < 1e-3


class TestOptunaSearch:
    def test_suggests_plain_data_then_finishes(self, tmp_path):
        search = OptunaSearch(toy_study(tmp_path, toy_space(trials=2)))
        first = search.suggest("a")
        assert first == json.loads(json.dumps(first))
        assert (first["number"], first["trial_id"]) == (0, "0000")
        assert first["params"] == toy_space().start_settings()[0]
        assert search.suggest("b")["trial_id"] == "0001"
        assert search.suggest("c") == Searcher.FINISHED

    def test_a_proposal_is_on_disk_before_its_trial_starts(self, tmp_path):
        study = toy_study(tmp_path, toy_space())
        proposal = OptunaSearch(study).suggest("a")
        assert study.store.read_proposals() == [proposal]

    @pytest.mark.parametrize(
        ("result", "error", "expected"),
        [
            ({"state": "complete", "val_top1": 0.5, "unique_values": 30, "time_total_s": 3.0}, False, "COMPLETE"),
            ({"state": "complete", "val_top1": 0.5, "unique_values": 30}, True, "FAIL"),
            ({"state": "complete", "val_top1": float("nan"), "unique_values": 30}, False, "FAIL"),
            ({"val_top1": 0.5, "unique_values": 30}, False, "FAIL"),
            ({"state": "pruned", "val_top1": 0.5, "unique_values": 30}, False, "PRUNED"),
            ({"state": "failed", "val_top1": None, "unique_values": None}, False, "FAIL"),
            (None, False, "FAIL"),
            (None, True, "FAIL"),
        ],
    )
    def test_tells_how_a_trial_ended(self, tmp_path, result, error, expected):
        search = OptunaSearch(toy_study(tmp_path, toy_space()))
        search.suggest("a")
        search.suggest("b")
        search.on_trial_complete("b", result, error)
        assert [trial.state.name for trial in search.proposer.study.trials] == ["RUNNING", expected]

    def test_can_be_pickled(self, tmp_path):
        search = OptunaSearch(toy_study(tmp_path, toy_space()))
        search.suggest("a")
        assert pickle.loads(pickle.dumps(search)).suggest("b") == search.suggest("b")

    @pytest.mark.parametrize("sampler", ["random", "tpe"])
    def test_a_new_process_goes_on_where_the_folder_stands(self, tmp_path, sampler):
        """Five trials finished and one interrupted; then a driver that knows the folder only."""
        study = toy_study(tmp_path, toy_space(sampler))
        uninterrupted = [proposal.params for proposal in search_all(Proposer(study.space))]
        search = OptunaSearch(study)
        for number in range(5):
            proposal = search.suggest(f"tune-{number}")
            metrics = accuracy_and_values(proposal["params"])
            study.store.write_trial({"trial_id": proposal["trial_id"], "number": number, **metrics})
            search.on_trial_complete(f"tune-{number}", metrics)
        interrupted = search.suggest("tune-5")

        resumed = OptunaSearch(study)
        assert resumed.suggest("a") == interrupted
        resumed.on_trial_complete("a", accuracy_and_values(interrupted["params"]))
        proposals = [interrupted]
        while (proposal := resumed.suggest("b")) != Searcher.FINISHED:
            proposals.append(proposal)
            resumed.on_trial_complete("b", accuracy_and_values(proposal["params"]))
        assert [proposal["number"] for proposal in proposals] == list(range(5, NUM_TRIALS))
        assert [proposal["params"] for proposal in proposals] == uninterrupted[5:]
        assert {trial.state.name for trial in resumed.proposer.study.trials} == {"COMPLETE"}
        assert len(resumed.proposer.study.trials) == NUM_TRIALS
