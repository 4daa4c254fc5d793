"""A WFN trial from its shipped space to its file, with and without norm layers in the fixed set."""

from pathlib import Path

import pytest
import torch

from pwfn.export import load_state
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.opening import open_task
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial

SHORTER = ("baseline.epochs=8", "training.rest_epochs=1", "training.steps_per_epoch=2", "data.train_images=256")


@pytest.mark.parametrize("include_norm", [False, True])
def test_row_and_file_speak_of_the_same_weights(tmp_path, include_norm):
    space = SearchSpace.load("wfn_digits.yaml", [*SHORTER, f"method.include_norm={str(include_norm).lower()}"])
    trial = Trial("0000", 0, "test", space.trial_config(space.start_settings()[0], 0))
    store = ResultsStore(str(tmp_path), "test")
    store.create()
    device, replicas = torch.device("cpu"), Replicas()
    row = run_trial(trial, store, device=device, replicas=replicas, on_round=lambda row, summary: Decision.CONTINUE)
    assert (row["state"], row["method"]) == ("complete", "wfn")

    network = open_task(trial.config, trial.config.model, device, replicas).network
    sets = split_parameters(network, include_norm=include_norm)
    state = load_state(Path(store.model_path("0000")))
    weights = [value for name in sets.fixable for value in state[name].flatten().tolist()]
    assert len(set(weights)) == row["unique_values"]
    assert len(weights) == row["num_weights"] == store.read_rounds("0000")[-1]["num_fixed"]
    assert row["coverage"] == sets.coverage
    assert (row["coverage"] == 1) == include_norm
    assert store.read_rounds("0000")[0]["train_loss"] is None  # the paper's first round is not trained
    assert row["test_top1"] > row["float_test_top1"] - 0.1 > 0.4
