"""Classes by name wherever data meets weights, and a float network near chance."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import fill
from safetensors.torch import load_file, save_file
from torch import Tensor

from pwfn.config import TrialConfig
from pwfn.errors import UserError
from pwfn.models import build_network, preprocessing_of
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.trial import opening
from pwfn.trial.float_network import ensure_baseline
from pwfn.trial.opening import open_data
from pwfn.trial.understood import understand
from pwfn.trial.understood_lines import format_understood

CPU = torch.device("cpu")
NATURAL = tuple(map(str, range(1, 12)))
LEXICAL = tuple(sorted(NATURAL))


def _config(
    root: Path, *, model: dict[str, Any] | None = None, baseline: dict[str, Any] | None = None, **data: Any
) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "model": {"name": "mlp_500_300", **(model or {})},
            "data": {"name": "imagefolder", "root": str(root), "image_size": 4, "channels": 1, "loader_workers": 0,
                     "augmentation": "none", "validation_fraction": 0.5, **data},
            "baseline": baseline or {},
            "method": {"name": "kmeans"},
        },
        strict=False,
    )  # fmt: skip


def _write_data(root: Path) -> Path:
    """Eleven classes 1..11, each of its own grey level."""
    for part in ("train", "val"):
        fill(root / part, NATURAL, 8)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return _write_data(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights of a network that tells the classes apart, in the natural order of their names."""
    config = _config(_write_data(tmp_path_factory.mktemp("trained") / "data"), class_order="natural", in_memory=True)
    source = open_data(config)
    network = build_network(config.model, num_classes=11, in_channels=1, image_size=4, seed=0)
    data = source.prepare(preprocessing_of(network), CPU)
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    for epoch in range(150):
        for images, labels in data.train_batches(batch_size=44, seed=epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    return network.state_dict()


@pytest.fixture
def checkpoint(trained: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_file(trained, path)
    return path


def _float_top1(config: TrialConfig, folder: Path) -> float:
    store = ResultsStore(str(folder / "results"), "study")
    store.create()
    return ensure_baseline(config, store, CPU, Replicas()).validation.top1


def test_an_order_nobody_has_chosen_is_refused_where_weights_are_loaded(
    root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = {"checkpoint": str(checkpoint)}
    message = (
        r"^data\.class_order: the class names sort differently in natural \(0 1, 1 2, .*\) and in lexical order "
        r"\(0 1, 1 10, .*\)"
        r", and nothing says .*; set natural \(timm's reader\) or lexical \(torchvision's\), or data\.class_map$"
    )
    with pytest.raises(UserError, match=message):
        _float_top1(_config(root, model=model), tmp_path)
    assert _float_top1(_config(root, model=model, class_order="natural"), tmp_path) > 0.8


def test_the_wrong_order_is_near_chance_and_stops_the_study(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    """98.06 % became 11.67 % without a word."""
    wrong = {"model": {"checkpoint": str(checkpoint)}, "class_order": "lexical"}
    message = r"the float network mlp_500_300 gets \d+\.\d\d% of .* right, which is near chance .*data\.class_order"
    with pytest.raises(UserError, match=message):
        _float_top1(_config(root, **wrong), tmp_path)
    assert not list((tmp_path / "results" / "study").rglob("*.safetensors"))  # nothing half-written
    assert _float_top1(_config(root, **wrong, baseline={"allow_chance": True}), tmp_path) < 0.3
    assert _float_top1(_config(root, **wrong, baseline={"epochs": 1, "lr": 1e-9}), tmp_path) < 0.3


@pytest.mark.parametrize("where", ["card", "header"])
def test_a_checkpoint_that_names_its_classes_decides(root: Path, checkpoint: Path, tmp_path: Path, where: str) -> None:
    if where == "card":
        checkpoint.with_suffix(".json").write_text(json.dumps({"classes": NATURAL}))
    else:
        save_file(load_file(checkpoint), checkpoint, {"classes": json.dumps(NATURAL)})
    model = {"checkpoint": str(checkpoint)}
    message = (
        r"classes: the card of net\.safetensors and the data differ: the same 11 names in another order, "
        r"class 1 is '10' and '2'; set data\.class_order=natural"
    )
    with pytest.raises(UserError, match=message):
        _float_top1(_config(root, model=model), tmp_path)
    assert _float_top1(_config(root, model=model, class_order="natural"), tmp_path) > 0.8


def test_a_checkpoint_of_other_classes(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.with_suffix(".json").write_text(json.dumps({"class_names": ["ant", *NATURAL[1:]]}))
    with pytest.raises(
        UserError, match=r"the card of net\.safetensors and the data differ: class 0 is '1' and 'ant'; give"
    ):
        _float_top1(_config(root, model={"checkpoint": str(checkpoint)}, class_order="natural"), tmp_path)


def test_random_weights_have_no_order(root: Path, tmp_path: Path) -> None:
    config = _config(root, baseline={"epochs": 1})
    assert 0 <= _float_top1(config, tmp_path) <= 1


def test_a_kept_float_network_remembers_its_classes(root: Path, tmp_path: Path) -> None:
    config = _config(root, baseline={"epochs": 1}, class_order="natural")
    _float_top1(config, tmp_path)
    for part in ("train", "val"):
        (root / part / "3").rename(root / part / "30")
    opening._source.cache_clear()
    with pytest.raises(UserError, match=r"the float network in .*study and the data differ: class 2 is '4' and '3'"):
        _float_top1(config, tmp_path)


def test_what_was_understood(root: Path, checkpoint: Path) -> None:
    (root / "train" / ".ipynb_checkpoints").mkdir()
    opening._source.cache_clear()
    found = understand(_config(root, model={"checkpoint": str(checkpoint)}, class_order="natural"))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(dict(found)))
    assert found["data"]["classes"] == list(NATURAL)
    assert found["data"]["images"]["train"] == {
        "total": 44,
        "smallest": [4, "1"],
        "largest": [4, "1"],
        "classes_without": 0,
    }
    text = format_understood(found)
    assert 8 <= len(text.splitlines()) <= 12
    for expected in (
        f"image files under {root}", "11, names in natural order (the other order differs): 0 1, 1 2, 2 3",
        "train 44, 4 of each class; validation 44, 4 of each class; test 88, 8 of each class",
        "train from train, validation from 50% of train", "1 hidden or system files and folders",
        "grey, 4x4 pixels", "mlp_500_300", str(checkpoint), "of the parameters",
    ):  # fmt: skip
        assert expected in text
