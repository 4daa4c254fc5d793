"""The command `shrink` end to end: an exported network of the digits to a row of smaller files."""

import functools
import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

import pwfn
import pwfn.shrink
from pwfn.commands import run
from pwfn.config import DataConfig, ModelConfig
from pwfn.export import describe_network, encode_network
from pwfn.export.contents import read_contents
from pwfn.export.evaluation import TestImages, evaluate_mean
from pwfn.models import build_network
from pwfn.parameters import split_parameters

DATA = DataConfig(name="digits")
shrink = functools.partial(run, "shrink")


@pytest.fixture(scope="module")
def content(network):
    """The file of an exported network."""
    return encode_network(network, describe_network(network, metrics={"val_top1": 0.5}))


@pytest.fixture
def file(tmp_path, content):
    path = tmp_path / "net.pwfn.safetensors"
    path.write_bytes(content)
    return path


def weights_of(path):
    return torch.cat([tensor.flatten() for tensor in read_contents(path).fixed.values()])


def rows(printed):
    """Values, entropy, bytes, accuracy of each row."""
    return [line.split()[:4] for line in printed.splitlines() if re.match(r" *\d", line)]


def smaller(folder, size):
    return folder / f"net-{size}-values.pwfn.safetensors"


def test_without_data_values_are_merged_each_stage_from_the_one_before(file, tmp_path, capsys):
    before = file.read_bytes()
    assert shrink([str(file), "--values", "16", "8", "3", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "merged only" in printed
    assert [row[0] for row in rows(printed)][1:] == ["16", "8", "3"]
    assert {row[3] for row in rows(printed)} == {"-"}
    assert file.read_bytes() == before
    stages = [file, *(smaller(tmp_path, size) for size in (16, 8, 3))]
    for earlier, later in pairwise(stages):
        pairs = torch.stack([weights_of(earlier), weights_of(later)]).unique(dim=1)
        assert pairs.shape[1] == len(weights_of(earlier).unique())  # the weights of one value stay together
    sizes = [int(row[2].replace(",", "")) for row in rows(printed)]
    assert sizes == sorted(sizes, reverse=True) == [path.stat().st_size for path in stages]


def test_plain_merging_gives_the_means_of_the_members(file, tmp_path):
    assert shrink([str(file), "--values", "4", "--device", "cpu"]) == 0
    old, new = weights_of(file), weights_of(smaller(tmp_path, 4))
    for value in new.unique():
        torch.testing.assert_close(old[new == value].mean(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epochs", ["0", "1"])
def test_with_data_the_row_has_the_accuracy_of_the_file(file, tmp_path, capsys, epochs):
    out = tmp_path / "new" / "row"
    options = ["--data", "digits", "--device", "cpu", "--out", str(out), "--epochs", epochs]
    assert shrink([str(file), "--values", "8", "3", *options]) == 0
    found = rows(capsys.readouterr().out)
    assert len(found) == 3
    for row, size in zip(found[1:], (8, 3), strict=True):
        network = pwfn.load(smaller(out, size))
        accuracy = evaluate_mean(network, TestImages(DATA, network, batch_size=512)).top1
        assert row[3] == f"{accuracy:.2%}"
        assert len(weights_of(smaller(out, size)).unique()) == size
        metadata = read_contents(smaller(out, size)).metadata
        assert metadata.metrics == {"test_top1": accuracy}  # nothing that was true of the larger network only
        assert metadata.provenance["shrunk_from"] == file.name


def test_sigmas_are_left_out_and_that_is_said(tmp_path, capsys):
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1)
    sigmas = {name: torch.full_like(each, 0.01) for name, each in split_parameters(network).fixable.items()}
    file = tmp_path / "net.pwfn.safetensors"
    file.write_bytes(encode_network(network, describe_network(network), sigmas=sigmas))
    assert shrink([str(file), "--values", "8", "--device", "cpu"]) == 0
    assert "the sigmas of the file are left out" in capsys.readouterr().out
    assert not read_contents(smaller(tmp_path, 8)).sigmas


def test_later_stages_go_on_from_the_latent_weights(file, tmp_path):
    options = ["--data", "digits", "--device", "cpu", "--out", str(tmp_path / "new"), "--epochs", "1"]
    assert shrink([str(file), "--values", "8", "3", *options]) == 0
    eight, three = (weights_of(smaller(tmp_path / "new", size)) for size in (8, 3))
    of_value = [three[eight == value].unique().numel() for value in eight.unique()]
    assert max(of_value) > 1  # weights that shared one of the eight may part again: their latent values differ


def test_path_following_and_gptq_spare_what_the_network_says(file, tmp_path, capsys):
    """With the same values, scores are nearer to those of the larger network than with the nearest values."""
    images = TestImages(DATA, pwfn.load(file), batch_size=512)
    pixels, _ = next(iter(images))
    errors = {}
    for assignment in ("nearest", "path_following", "gptq"):
        out = tmp_path / assignment
        options = ["--data", "digits", "--device", "cpu", "--out", str(out), "--assignment", assignment]
        assert shrink([str(file), "--values", "4", *options]) == 0
        with torch.no_grad():
            errors[assignment] = float((pwfn.load(smaller(out, 4))(pixels) - pwfn.load(file)(pixels)).square().mean())
    assert errors["gptq"] < errors["path_following"] < errors["nearest"]
    values = [weights_of(smaller(tmp_path / each, 4)).unique() for each in errors]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_batchnorm_is_recalibrated_on_images_augmented_as_the_file_records(network, tmp_path, caplog):
    written = {}
    for name, recorded, options, warned in (
        ("default", {}, [], True),
        ("flip", {}, ["--augmentation", "flip"], False),
        ("recorded", {"augmentation": "none"}, [], False),
        ("none", {}, ["--augmentation", "none"], False),
        ("option first", {"augmentation": "none"}, ["--augmentation", "flip"], False),
        ("from a later version", {"augmentation": "twirl"}, [], True),
    ):
        path = tmp_path / name / "net.pwfn.safetensors"
        path.parent.mkdir()
        path.write_bytes(encode_network(network, describe_network(network, provenance=recorded)))
        caplog.clear()
        assert shrink([str(path), "--values", "8", "--data", "digits", "--device", "cpu", *options]) == 0
        assert (f"{path} does not record how its training images were augmented" in caplog.text) == warned
        buffers = dict(pwfn.load(smaller(path.parent, 8)).named_buffers())
        written[name] = torch.cat([buffer.flatten() for buffer in buffers.values()])
    assert torch.equal(written["default"], written["flip"])
    assert torch.equal(written["option first"], written["flip"])
    assert torch.equal(written["from a later version"], written["flip"])
    assert torch.equal(written["recorded"], written["none"])
    assert not torch.equal(written["none"], written["flip"])


def test_training_beats_merging_alone(file, tmp_path, capsys):
    reached = {}
    for epochs in ("0", "2"):
        options = ["--data", "digits", "--device", "cpu", "--out", str(tmp_path / epochs), "--epochs", epochs]
        assert shrink([str(file), "--values", "8", "3", *options]) == 0
        reached[epochs] = float(rows(capsys.readouterr().out)[-1][3].rstrip("%"))
    assert reached["2"] > reached["0"], reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--values", "8", "8"], "must fall"),
        (["--values", "4", "8"], "must fall"),
        (["--values", "3000"], "ask for fewer"),
        (["--values", "8", "--epochs", "1"], "needs training images"),
        (["--values", "8", "--weighting", "fisher"], "needs training images"),
        (["--values", "8", "--assignment", "path_following"], "--assignment path_following needs training images"),
        (["--values", "8", "--assignment", "gptq"], "--assignment gptq needs training images"),
        (["--values", "8", "--augmentation", "flip"], "--augmentation flip changes training images: give --data"),
        (["--values", "8", "--out", "taken/below"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(
    file, tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert shrink([str(file), *options, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {file.name, "taken"}


def test_training_that_diverges_is_one_line(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pwfn.shrink.TRAINING", pwfn.shrink.TRAINING.model_copy(update={"lr": 1e30}))
    options = ["--data", "digits", "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "new")]
    assert shrink([str(file), "--values", "8", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list((tmp_path / "new").iterdir())


def test_data_of_other_classes_is_refused(tmp_path, capsys):
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=7, in_channels=1)
    file = tmp_path / "net.pwfn.safetensors"
    file.write_bytes(encode_network(network, describe_network(network)))
    assert shrink([str(file), "--values", "8", "--data", "digits", "--device", "cpu"]) == 2
    assert "10 classes, but the network tells 7 apart" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_that_was_not_exported_is_refused(tmp_path, capsys):
    save_file({"weight": torch.zeros(3, 3)}, tmp_path / "net.safetensors")
    assert shrink([str(tmp_path / "net.safetensors"), "--values", "8", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "net.safetensors" in error
    assert error.count("\n") == 1


def test_files_that_are_there_are_kept(file, tmp_path, capsys):
    smaller(tmp_path, 4).write_text("kept")
    assert shrink([str(file), "--values", "8", "4", "--device", "cpu"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert smaller(tmp_path, 4).read_text() == "kept"
    assert not smaller(tmp_path, 8).exists()
