import json
import logging
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from pwfn.results.store import ResultsStore
from pwfn.search.proposer import SAMPLERS, Proposer
from pwfn.search.study import SearchStudy
from pwfn.space.declaration import Origin, Sampler
from pwfn.space.space import SearchSpace
from pwfn.sweep.searchers import OptunaSearch

NUM_TRIALS = 12
"""More than the ten random trials with which every sampler begins."""


THREE = {"val_top1": "maximize", "unique_values": "minimize", "entropy_bits": "minimize"}
BOUNDS = {"val_top1": {"max_drop": 0.4}, "unique_values": {"max": 128}}


def toy_space(sampler="tpe", trials=NUM_TRIALS, seed=0, objectives=None, constraints=None, batch=None):
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
        "search": {"sampler": sampler, "trials": trials, "seed": seed, "batch": batch},
        "objectives": objectives or {},
        "constraints": constraints or {},
        "start_with": [{"method.fractions": [0.5, 1.0]}, {"method.fractions": [0.5, 1.0], "method.b": 3}],
    }
    return SearchSpace.read("toy", declared, Origin("toy.yaml"))


def toy_study(folder, space):
    store = ResultsStore(str(folder), "toy")
    store.create()
    return SearchStudy(space, store)


def accuracy_and_values(params):
    """A toy trade-off: larger b costs values and gains accuracy; a wide sigma costs entropy."""
    loss = (params["method.start_sigma"] - 1) ** 2 / 20 + params["training.lr"]
    return {
        "state": "complete",
        "val_top1": params["method.b"] / 8 - loss,
        "unique_values": 2 ** params["method.b"],
        "entropy_bits": params["method.b"] - params["method.start_sigma"] / 2,
        "float_val_top1": 0.95,
    }


def search_all(proposer):
    proposals = []
    while (proposal := proposer.ask()) is not None:
        proposals.append(proposal)
        metrics = accuracy_and_values(proposal.params)
        proposer.tell(proposal.number, "complete", metrics)
    return proposals


def outcome(proposal):
    """Most trials are complete, some are pruned, some fail."""
    state = {3: "failed", 5: "pruned"}.get(proposal["number"] % 7, "complete")
    return accuracy_and_values(proposal["params"]) | {"state": state}


def sweep(folder, space, slots=3, order=0, lost_every=0):
    """Run a whole search as Tune would, with so many trials at once; return the parameters of all proposals.

    `order` decides which of the running trials ends next. After each `lost_every` ends the driver is lost, and a new
    one knows the folder only.
    """
    study = toy_study(folder, space)
    search, running, proposed = OptunaSearch(study), {}, {}
    chance = random.Random(order)
    for num_ended in range(1, space.search.trials + 1):
        while len(running) < slots:
            tune_id = f"{num_ended}-{len(running)}"
            if not isinstance(proposal := search.suggest(tune_id), dict):
                break
            assert proposed.setdefault(proposal["number"], proposal) == proposal
            running[proposal["number"]] = tune_id
        number = chance.choice(sorted(running))
        ended = outcome(proposed[number])
        study.store.write_trial({"trial_id": f"{number:04d}", "number": number, **ended})
        search.on_trial_complete(running.pop(number), ended)
        if lost_every and num_ended % lost_every == 0:
            search, running = OptunaSearch(study), {}
    assert search.suggest("one more") == Searcher.FINISHED
    return [proposed[number]["params"] for number in range(space.search.trials)]


QUICK = ["tpe", "random"]
COSTLY = ["nsga2", "nsga3", "gp"]
"""Samplers whose proposals take seconds; of them the tests that are not slow see little."""
GP_NOTE = "the gp sampler draws fields with conditions at random: training.momentum"


@pytest.mark.parametrize("sampler", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in COSTLY)])
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
        for number, params, _ in search_all(Proposer(space)):
            config = space.trial_config(params, number)
            assert config.method.b == params["method.b"]
            assert list(config.method.fractions) == params["method.fractions"]

    def test_every_trial_ends(self, sampler):
        proposer = Proposer(toy_space(sampler, constraints=BOUNDS))
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

    @pytest.mark.parametrize("objectives", [None, THREE], ids=["two", "three"])
    def test_takes_constraints(self, sampler, objectives):
        """Half of the trials keep the bounds; to Optuna what is at most 0 keeps them."""
        space = toy_space(sampler, objectives=objectives, constraints=BOUNDS)
        proposer = Proposer(space)
        proposals = search_all(proposer)
        assert len(proposals) == NUM_TRIALS
        for (_, params, _), trial in zip(proposals, proposer.study.trials, strict=True):
            told = accuracy_and_values(params)
            assert trial.values == [told[name] for name in space.objectives]
            keeps = told["val_top1"] >= 0.55, told["unique_values"] <= 128
            assert tuple(value <= 0 for value in trial.constraints.values()) == keeps

    def test_a_lost_driver_changes_no_proposal(self, sampler, tmp_path, caplog):
        """Three at once, and after every trial a new driver that knows the folder only."""
        caplog.set_level(logging.ERROR)
        space = toy_space(sampler, trials=LONG[sampler], constraints=BOUNDS)
        undisturbed = sweep(tmp_path / "undisturbed", space)
        assert sweep(tmp_path / "disturbed", space, lost_every=1) == undisturbed
        assert sweep(tmp_path / "other", space, order=1) != undisturbed or sampler == "random"

    def test_batches_depend_on_nothing_else(self, sampler, tmp_path):
        """Neither on who ends first, nor on how many run at once, nor on when the driver is lost."""
        space = toy_space(sampler, trials=LONG[sampler], batch=4)
        one_by_one = sweep(tmp_path / "1", space, slots=1)
        assert sweep(tmp_path / "2", space, slots=2, order=1) == one_by_one
        assert sweep(tmp_path / "4", space, slots=9, order=2, lost_every=3) == one_by_one

    def test_going_on_with_more_trials_is_the_same_search(self, sampler):
        planned, num_trials = Proposer(toy_space(sampler, trials=LONG[sampler])), LONG[sampler]
        longer = Proposer(toy_space(sampler, trials=10 * num_trials))
        for proposal in search_all(planned):
            assert longer.ask() == proposal
            longer.tell(proposal.number, "complete", accuracy_and_values(proposal.params))


@pytest.mark.parametrize(
    ("samplers", "said"), [(QUICK, ""), pytest.param(COSTLY, f"{GP_NOTE}\n", marks=pytest.mark.slow)]
)
def test_gives_the_same_proposals_in_another_process(samplers, said):
    here = {sampler: search_all(Proposer(toy_space(sampler, seed=3))) for sampler in samplers}
    code = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_optuna_search import *
print(json.dumps({{sampler: search_all(Proposer(toy_space(sampler, seed=3))) for sampler in {samplers!r}}}))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(here))
    assert done.stderr == said
    for sampler, proposals in here.items():
        assert proposals != search_all(Proposer(toy_space(sampler, seed=4)))


LONG = {"tpe": 18, "nsga2": 28, "nsga3": 28, "gp": 17, "random": 12}
"""Trials after which a sampler has left its random start behind: with them, one of NSGA's parents have been chosen."""


def test_every_sampler_that_a_space_may_name_can_be_made_and_is_tried():
    assert set(get_args(Sampler)) == set(SAMPLERS) == set(LONG) == {*QUICK, *COSTLY}


def test_gp_says_once_what_it_draws_at_random(caplog):
    search_all(Proposer(toy_space("gp", trials=3)))
    assert [record.message for record in caplog.records] == [GP_NOTE]


def test_better_trials_attract_tpe():
    proposer = Proposer(toy_space("tpe", trials=60, objectives={"val_top1": "maximize"}))
    proposals = search_all(proposer)
    rates = sorted(proposal.params["training.lr"] for proposal in proposals[40:])
    assert rates[len(rates) // 2] < 10**-2.5, "half of the last trials should be in the better half of the log range"


def test_running_trials_count_for_tpe_after_a_loss(tmp_path):
    """With many at once, what TPE drew for fields that do not apply to a running trial counts too."""
    space = toy_space("tpe", trials=40, objectives=THREE)
    assert sweep(tmp_path / "disturbed", space, 6, lost_every=8) == sweep(tmp_path / "undisturbed", space, 6)


def known_trials(num):
    """Random trials and how they ended."""
    proposals = search_all(Proposer(toy_space("random", trials=num, seed=5)))
    return [(proposal.params, accuracy_and_values(proposal.params)) for proposal in proposals]


@pytest.mark.parametrize(("sampler", "num_known", "num_new"), [("tpe", 40, 8), ("nsga2", 40, 8), ("nsga3", 40, 8)])
def test_a_constraint_draws_the_search_to_its_side(sampler, num_known, num_new):
    """Without a bound a large b is as good as a small one; at most 16 values leave 3 and 4 of 3 to 8."""
    num_kept = []
    for constraints in ({}, {"unique_values": {"max": 16}}):
        proposer = Proposer(toy_space(sampler, trials=2 + num_new, constraints=constraints))
        proposer.add_complete(known_trials(num_known))
        num_kept.append(sum(proposal.params["method.b"] <= 4 for proposal in search_all(proposer)[2:]))
    assert num_kept[1] >= num_kept[0] + 2


def test_a_constraint_draws_gp_to_its_side():
    """By chance one in three would keep the bound."""
    proposer = Proposer(toy_space("gp", trials=5, constraints={"unique_values": {"max": 16}}))
    proposer.add_complete(known_trials(12))
    assert [proposal.params["method.b"] <= 4 for proposal in search_all(proposer)[2:]] == [True, True, True]


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
        proposer.ask()
        trial = proposer.study.trials[0]
        assert trial.state == expected
        assert trial.values == ([0.5, 30.0] if expected == TrialState.COMPLETE else None)

    @pytest.mark.parametrize(
        ("metrics", "expected"),
        [
            ({"val_top1": 0.5, "unique_values": 30, "float_val_top1": 0.8}, (TrialState.COMPLETE, [-0.25, 1.0])),
            ({"val_top1": 0.3, "unique_values": 12, "float_val_top1": 0.8}, (TrialState.COMPLETE, [0.25, -0.2])),
            ({"val_top1": 0.5, "unique_values": 30}, (TrialState.FAIL, [])),
        ],
    )
    def test_constraints(self, metrics, expected):
        """An accuracy of at least 0.4, at most 15 values: shares of these by which they are missed."""
        proposer = Proposer(toy_space(constraints={"val_top1": {"max_drop": 0.4}, "unique_values": {"max": 15}}))
        proposer.tell(proposer.ask().number, "complete", metrics)
        proposer.ask()
        trial = proposer.study.trials[0]
        assert (trial.state, list(trial.constraints.values())) == (expected[0], pytest.approx(expected[1]))

    def test_values_follow_the_declared_objectives(self):
        space = toy_space(objectives={"sparsity": "maximize", "entropy_bits": "minimize", "mean_order": "minimize"})
        proposer = Proposer(space)
        metrics = {"mean_order": 1.5, "entropy_bits": 3.0, "sparsity": 0.25, "val_top1": 0.9}
        proposer.tell(proposer.ask().number, "complete", metrics)
        proposer.ask()
        maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        assert proposer.study.directions == [maximize, minimize, minimize]
        assert proposer.study.trials[0].values == [0.25, 3.0, 1.5]

    def test_a_second_end_is_ignored(self, caplog):
        proposer = Proposer(toy_space())
        number = proposer.ask().number
        proposer.tell(number, "failed", {})
        with caplog.at_level(logging.WARNING):
            proposer.tell(number, "complete", {"val_top1": 0.5, "unique_values": 30})
        proposer.ask()
        assert proposer.study.trials[0].state == TrialState.FAIL
        assert caplog.messages == ["trial 0 is not open, so its end in state complete is not told"]

    def test_a_batch_is_told_when_it_is_over(self):
        proposer = Proposer(toy_space(trials=5, batch=2))
        first, second = proposer.ask(), proposer.ask()
        proposer.tell(second.number, "complete", accuracy_and_values(second.params))
        assert proposer.must_wait
        proposer.tell(first.number, "complete", accuracy_and_values(first.params))
        assert not proposer.must_wait
        assert [trial.state.name for trial in proposer.study.trials] == ["RUNNING", "RUNNING"]
        third = proposer.ask()
        proposer.tell(third.number, "complete", accuracy_and_values(third.params))
        assert not proposer.must_wait
        proposer.ask()
        states = [trial.state.name for trial in proposer.study.trials]
        assert states == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING"], "the third waits for the fourth"


KNOWN = {
    "method.b": 4,
    "method.fractions": [0.2, 0.6, 1.0],
    "method.start_sigma": 1,
    "training.clip_norm": None,
    "training.lr": 0.001,
    "training.optimizer": "adam",
}


class TestAddComplete:
    def test_tells_trials_that_take_no_number(self):
        proposer = Proposer(toy_space(constraints=BOUNDS))
        elsewhere = KNOWN | {"method.b": 9}
        proposer.add_complete([(params, accuracy_and_values(params)) for params in (KNOWN, elsewhere)])
        proposer.add_complete([(KNOWN, {"val_top1": 0.5})])
        told = proposer.study.trials
        assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.FAIL]
        assert told[0].values == [0.499, 16.0]
        assert told[0].constraints == pytest.approx(
            {"val_top1.max_drop": 0.051 / 0.55, "unique_values.max": -112 / 128}
        )
        assert [proposal.number for proposal in search_all(proposer)] == list(range(NUM_TRIALS))

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", pytest.param("gp", marks=pytest.mark.slow)])
    def test_known_trials_teach_the_sampler(self, sampler):
        """Fifty known trials that are best at the smallest learning rates."""
        taught = Proposer(toy_space(sampler, trials=12, objectives={"val_top1": "maximize"}))
        rates = [10 ** (-1 - 3 * step / 49) for step in range(50)]
        taught.add_complete([(KNOWN | {"training.lr": rate}, {"val_top1": -rate}) for rate in rates])
        proposed = sorted(proposal.params["training.lr"] for proposal in search_all(taught)[2:])
        assert proposed[5] < 1e-3


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
        study = toy_study(tmp_path, toy_space("nsga2"))
        proposal = OptunaSearch(study).suggest("a")
        noted = {"trial": {"NSGAIISampler:generation": 0}, "study": {}}
        assert study.store.read_proposals() == [proposal | {"attributes": noted}]

    @pytest.mark.parametrize(
        ("result", "error", "expected"),
        [
            ({"state": "complete", "val_top1": 0.5, "unique_values": 30, "time_total_s": 3.0}, False, "COMPLETE"),
            ({"state": "complete", "val_top1": 0.5, "unique_values": 30}, True, "FAIL"),
            ({"state": "complete", "val_top1": float("nan"), "unique_values": 30}, False, "FAIL"),
            ({"val_top1": 0.5, "unique_values": 30}, False, "FAIL"),
            ({"state": "pruned", "val_top1": 0.5, "unique_values": 30}, False, "PRUNED"),
            ({"state": "failed", "val_top1": None, "unique_values": None}, False, "FAIL"),
            ({"state": "interrupted", "val_top1": 0.5, "unique_values": 30}, False, "RUNNING"),
            (None, False, "FAIL"),
            (None, True, "FAIL"),
        ],
    )
    def test_tells_how_a_trial_ended(self, tmp_path, result, error, expected):
        search = OptunaSearch(toy_study(tmp_path, toy_space()))
        search.suggest("a")
        search.suggest("b")
        search.on_trial_complete("b", result, error)
        search.suggest("c")
        assert [trial.state.name for trial in search.proposer.study.trials] == ["RUNNING", expected, "RUNNING"]

    def test_waits_for_the_rest_of_a_batch(self, tmp_path):
        search = OptunaSearch(toy_study(tmp_path, toy_space(trials=3, batch=2)))
        first, second = search.suggest("a"), search.suggest("b")
        assert search.suggest("c") is None
        search.on_trial_complete("b", accuracy_and_values(second["params"]))
        assert search.suggest("c") is None
        search.on_trial_complete("a", accuracy_and_values(first["params"]))
        assert search.suggest("c")["number"] == 2
        assert search.suggest("d") == Searcher.FINISHED

    def test_proposes_nothing_once_it_is_stopped(self, tmp_path):
        study = toy_study(tmp_path, toy_space(batch=2))
        search = OptunaSearch(study)
        interrupted = [search.suggest("a"), search.suggest("b")]
        search.stop()
        assert search.suggest("c") == Searcher.FINISHED
        search.on_trial_complete("a", {"state": "interrupted"})
        assert search.suggest("c") == Searcher.FINISHED
        resumed = OptunaSearch(study)
        assert [resumed.suggest("a"), resumed.suggest("b"), resumed.suggest("c")] == [*interrupted, None]

    def test_trials_of_another_space_are_left_out(self, tmp_path, caplog):
        """Their numbers stay taken; this happens where a change of the space was forced."""
        study = toy_study(tmp_path, toy_space())
        for number, params in enumerate([KNOWN, KNOWN | {"method.b": 9}, {"method.b": 4}]):
            study.store.write_proposal(
                f"{number:04d}", {"number": number, "trial_id": f"{number:04d}", "params": params}
            )
        search = OptunaSearch(study)
        assert [search.suggest(name)["number"] for name in "abc"] == [0, 3, 4]
        assert caplog.messages == ["left out, as they lie outside the space: 2 trials"]

    def test_replicates_are_none_of_it(self, tmp_path):
        study = toy_study(tmp_path, toy_space())
        search = OptunaSearch(study)
        first = search.suggest("a")
        study.store.write_proposal("0000-r1", first | {"trial_id": "0000-r1", "replicate": 1})
        study.store.write_trial({"trial_id": "0000-r1", "number": 0, **accuracy_and_values(first["params"])})
        resumed = OptunaSearch(study)
        assert [resumed.suggest("a")["trial_id"], resumed.suggest("b")["trial_id"]] == ["0000", "0001"]
        assert [trial.state.name for trial in resumed.proposer.study.trials] == ["RUNNING", "RUNNING"]

    def test_can_be_pickled(self, tmp_path):
        search = OptunaSearch(toy_study(tmp_path, toy_space()))
        search.suggest("a")
        assert pickle.loads(pickle.dumps(search)).suggest("b") == search.suggest("b")

    def test_leaves_nothing_in_the_snapshots_of_tune(self, tmp_path):
        OptunaSearch(toy_study(tmp_path / "study", toy_space())).save_to_dir(str(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["study"]
