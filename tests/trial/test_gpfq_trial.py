"""A trial of a post-training method, from its shipped space to the saved file and its rows."""

from pathlib import Path

import pytest
import torch

from pwfn.export import load_state
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.results.schema import ROUNDS, TRIALS, to_rows, to_table
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.opening import open_task
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial

SPACE = Path(__file__).parents[2] / "search_spaces" / "gpfq_digits.yaml"


@pytest.mark.parametrize("method", ["gpfq", pytest.param("msq", marks=pytest.mark.slow)])
def test_the_shipped_space_gives_a_file_with_as_many_values_as_its_row_says(method, tmp_path):
    # Long enough that the float network has learned: how a half-trained one falls after rounding is chance.
    space = SearchSpace.load(SPACE, [f"method.name={method}", "baseline.epochs=12"])
    trial = Trial("0000", 0, "test", space.trial_config(space.start_settings()[0], 0))
    store = ResultsStore(str(tmp_path), "test")
    store.create()
    row = run_trial(
        trial, store, device=torch.device("cpu"), replicas=Replicas(), on_round=lambda row, summary: Decision.CONTINUE
    )
    assert row["state"] == "complete"
    network = open_task(trial.config, trial.config.model, torch.device("cpu"), Replicas()).network
    state = load_state(Path(store.model_path("0000")))
    values = {value for key in split_parameters(network).fixable for value in state[key].flatten().tolist()}
    stored = store.read_trial("0000")
    assert len(values) == stored["unique_values"] <= 4 * 2**4 + 1
    assert stored["untreated_layers"] == store.read_rounds("0000")[0]["untreated_layers"] == []
    assert stored["method"] == method
    assert stored["float_test_top1"] > 0.9
    assert stored["test_top1"] > stored["float_test_top1"] - 0.1


@pytest.mark.parametrize("schema", [TRIALS, ROUNDS])
def test_untreated_layers_are_stored_by_name(schema):
    row = {field.name: 0 if field.name == "round" else "x" for field in schema if not field.nullable}
    table = to_table([{**row, "untreated_layers": ("head", "blocks.0.attn")}, row], schema)
    assert [each["untreated_layers"] for each in to_rows(table)] == [["head", "blocks.0.attn"], None]
