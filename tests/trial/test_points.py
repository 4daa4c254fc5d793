"""A trial of several stages leaves several whole networks: rows, files, places on the front, what a search learns."""

import math

import pytest
import torch
from test_trial import result, run

import analysis
from pwfn.config import ModelConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.export import load_state
from pwfn.naming import PointName
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.search.learning import lesson
from pwfn.search.study import open_study
from pwfn.space.declaration import HYPERVOLUME
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.opening import open_task
from pwfn.trial.rows import Trial

SPACE = """
fixed:
  model: {name: digits_mlp}
  data: {name: digits, augmentation: none, train_images: 256, validation_fraction: 0.3, test_images: 100}
  baseline: {epochs: 4, lr: 0.05, batch_size: 64}
  training: {optimizer: adam, lr_schedule: cosine, weight_decay: 0.0, batch_size: 64, start_fraction: 1, rest_epochs: 1}
  method: {name: qat, stages: [8, 4, 2], stage_rounds: [2], fisher_images: 100}
vary:
  training.lr: {log_float: [0.001, 0.05]}
search: {sampler: random, trials: 3, seed: 1, baselines: false, stage: STAGE}
start_with: [{training.lr: 0.003}]
"""


def space_of(folder, stage="last"):
    path = folder / "stages.yaml"
    path.write_text(SPACE.replace("STAGE", str(stage)))
    return SearchSpace.load(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study of one trial of three stages, and its space."""
    folder = tmp_path_factory.mktemp("stages")
    study = open_study(space_of(folder), ResultsStore(str(folder / "results"), "stages"), command="test")
    proposal = {"trial_id": "0000", "number": 0, "params": {"training.lr": 0.003}}
    study.store.write_proposal("0000", proposal)
    run(study.trial(proposal), study.store)
    return study


@pytest.mark.parametrize(
    ("name", "of_trial", "replicate", "stage"),
    [
        ("0007", "0007", 0, None),
        ("0007-r2", "0007", 2, None),
        ("0007-s0", "0007", 0, 0),
        ("0007-r2-s11", "0007", 2, 11),
        ("kmeans-fisher-16", "kmeans-fisher-16", 0, None),
        ("kmeans-16.1-r1", "kmeans-16.1", 1, None),
    ],
)
def test_a_name_is_taken_apart_and_put_together(name, of_trial, replicate, stage):
    assert PointName.read(name) == PointName(of_trial, replicate, stage)
    assert str(PointName.read(name)) == name


def test_each_stage_leaves_a_row_a_codebook_and_a_network(finished):
    points = finished.store.read_points("0000")
    assert [row["trial_id"] for row in points] == ["0000-s0", "0000-s1", "0000"]
    assert [row["stage"] for row in points] == [0, 1, 2]
    assert [row["unique_values"] for row in points] == [8, 4, 2]
    assert {row["state"] for row in points} == {"complete"}
    assert all(math.isfinite(row["test_top1"]) for row in points)
    rounds = finished.store.read_rounds("0000")
    assert [row["stage"] for row in rounds] == [0, 0, 1, 1, 2, 2]
    assert [rounds[index]["val_top1"] for index in (1, 3, 5)] == [row["val_top1"] for row in points]
    config = TrialConfig.model_validate_json(points[-1]["config_json"])
    for row in points:
        state = load_state(finished.store.model_path(row["trial_id"]))
        task = open_task(config, ModelConfig(name="digits_mlp"), torch.device("cpu"), Replicas())
        fixed = split_parameters(task.network).fixable
        assert len({value for name in fixed for value in state[name].flatten().tolist()}) == row["unique_values"]


def test_only_the_trial_itself_has_costs(finished):
    *stages, own = finished.store.read_points("0000")
    assert own["wall_seconds"] > 0
    assert all(row["wall_seconds"] is None for row in stages)
    assert all(row["finished_at"] <= own["finished_at"] for row in stages)


def test_a_killed_trial_leaves_its_points_and_goes_on_to_the_same_ones(finished, tmp_path):
    store = ResultsStore(str(tmp_path), "again")
    store.create()
    config = TrialConfig.model_validate_json(finished.store.read_trial("0000")["config_json"])
    trial = Trial("0000", 0, "again", config)
    assert (
        run(trial, store, on_round=lambda row, summary: Decision.STOP if row["round"] == 2 else Decision.CONTINUE)
        is None
    )
    assert [row["trial_id"] for row in store.read_points("0000")] == ["0000-s0"]
    run(trial, store)
    assert result(store.read_points("0000")) == result(finished.store.read_points("0000"))


def test_every_point_is_a_row_of_the_report(finished):
    study = analysis.load(f"{finished.store.results}/stages")
    assert set(study.trials["trial_id"]) == {"0000-s0", "0000-s1", "0000"}
    assert study.num_ended == 1
    points = analysis.configurations(study.trials)
    assert len(points) == 3  # not merged as seeds of one configuration
    assert set(points["num_seeds"]) == {1}


def test_a_search_learns_from_the_stage_that_its_space_names(finished, tmp_path):
    rows = finished.store.read_points("0000")
    own = rows[-1]
    assert lesson(space_of(tmp_path), finished.store, own) == own
    for stage, point in ((0, rows[0]), (1, rows[1]), (2, own), (9, own)):
        told = lesson(space_of(tmp_path, stage), finished.store, own)
        assert (told["trial_id"], told["unique_values"]) == ("0000", point["unique_values"])
    space = space_of(tmp_path, "hypervolume")
    share = lesson(space, finished.store, own)[HYPERVOLUME]
    study = analysis.load(f"{finished.store.results}/stages")
    assert share == pytest.approx(analysis.hypervolume(study.trials, study.objectives).share)
    assert share > analysis.hypervolume(study.trials.iloc[-1:], study.objectives).share
    assert space.learned == {HYPERVOLUME: "maximize"}


def test_a_failed_trial_teaches_that_it_failed(finished, tmp_path):
    row = {"trial_id": "0009", "state": "failed"}
    assert lesson(space_of(tmp_path, "hypervolume"), finished.store, row) == row


def test_the_hypervolume_needs_objectives_of_a_known_range(tmp_path):
    path = tmp_path / "sized.yaml"
    path.write_text(SPACE.replace("STAGE", "hypervolume") + "objectives: {val_top1: maximize, size_bytes: minimize}\n")
    expected = r"search\.stage: the hypervolume needs objectives of a known range, but size_bytes has none"
    with pytest.raises(UserError, match=expected):
        SearchSpace.load(path)
