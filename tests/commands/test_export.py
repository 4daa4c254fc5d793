"""The two commands end to end: a trial's network, and checkpoints of other tools, to a file that loads."""

import functools
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pwfn
from pwfn.commands import run
from pwfn.config import DataConfig, ModelConfig, TrialConfig
from pwfn.export import describe_network, encode_network, load_state
from pwfn.export.contents import read_contents
from pwfn.export.evaluation import TestImages, evaluate_mean
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.results.store import ResultsStore

CONFIG = TrialConfig(model=ModelConfig(name="digits_cnn"), data=DataConfig(name="digits", split_seed=0))


export, evaluate = (functools.partial(run, name) for name in ("export", "evaluate"))


@pytest.fixture
def store(tmp_path, network):
    store = ResultsStore(str(tmp_path / "results"), "digits")
    store.create()
    write_trial(store, network)
    return store


def write_trial(store, network, trial_id="0007", sigmas=None, **changes):
    weights = torch.cat([p.detach().flatten() for p in split_parameters(network).fixable.values()])
    row = {
        "trial_id": trial_id,
        "state": "complete",
        "config_json": CONFIG.model_dump_json(),
        "test_top1": evaluate_mean(network, TestImages(CONFIG.data, network, batch_size=512)).top1,
        "float_test_top1": 0.97,
        "unique_values": len(weights.unique()),
    } | changes
    store.write_trial(row)
    store.write_model(trial_id, encode_network(network, describe_network(network), sigmas=sigmas))
    return row


def run_trial_export(store, out, *options):
    return export(["--results", store.results, "--study", "digits", "--trial", "7", "--out", str(out), *options])


def printed(capsys):
    """Labels and texts of the report."""
    lines = (line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    return {label.strip(): text.strip() for label, text in lines}


def test_a_trial_is_exported_checked_and_reported(store, network, tmp_path, capsys):
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out) == 0
    lines = printed(capsys)
    row = store.read_trial("0007")
    assert row["test_top1"] > 0.5
    assert lines["values"].startswith(f"{row['unique_values']} (")
    assert f"top-1 {row['test_top1']:.2%}" in lines["accuracy before"]
    assert f"top-1 {row['test_top1']:.2%}" in lines["accuracy after"]
    assert lines["float accuracy"] == "97.00%"
    assert lines["bytes"].startswith(f"{out.stat().st_size:,}: indices")
    assert {"entropy", "bits per weight", "float32 file", "its zip", "multiplications", "Huffman reads"} <= lines.keys()
    loaded = pwfn.load(out).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())
    assert list(tmp_path.glob(".*")) == []


def test_untouched_tensors_may_be_narrow(store, tmp_path):
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out, "--rest-dtype", "float16") == 0
    contents = read_contents(out)
    assert contents.narrowed == {name for name, tensor in contents.rest.items() if tensor.is_floating_point()} != set()


def test_onnx_files_lie_beside(store, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out, "--onnx", str(tmp_path / "model.onnx")) == 0
    assert (tmp_path / "model.onnx").stat().st_size < (tmp_path / "model.dense.onnx").stat().st_size
    assert "scores alike" in printed(capsys)["onnx"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unique_values": 3}, r"check failed: \d+ values in the file, 3 on record; no file was written"),
        ({"test_top1": 0.999}, "on record; is the data the same"),
        ({"state": "pruned"}, "study digits: trial 0007 is pruned; only a complete one can be exported"),
        ({"config_json": '{"model": 3}'}, "trial 0007: its configuration is of another version of pwfn: model"),
    ],
)
def test_a_failed_check_is_an_error_and_leaves_no_file(store, network, tmp_path, capsys, changes, message):
    write_trial(store, network, **changes)
    out = tmp_path / "model.pwfn.safetensors"
    out.write_bytes(b"an earlier file")
    assert run_trial_export(store, out) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
    assert out.read_bytes() == b"an earlier file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pwfn.safetensors", "results"]


def test_a_trial_that_is_not_there_is_named(store, tmp_path, capsys):
    arguments = ["--results", store.results, "--study", "digits", "--out", str(tmp_path / "x")]
    assert export([*arguments, "--trial", "12"]) == 2
    where = f"study digits in {store.results}"
    assert f"{where} has no finished trial 0012; it has 0007 to 0007" in capsys.readouterr().err
    assert export([*arguments, "--trial", "../7"]) == 2
    assert "has no finished trial ../7; it has 0007 to 0007" in capsys.readouterr().err
    assert export(["--results", store.results, "--study", "digit", "--out", "x", "--trial", "7"]) == 2
    assert "study digit in " in (error := capsys.readouterr().err)
    assert error.endswith("has no finished trial 0007; it has none\n")
    store.delete_model("0007")
    assert export([*arguments, "--trial", "7"]) == 2
    assert (
        "the network of trial 0007 was not kept; run it again with its own seed: pwfn train "
        f"--results {store.results} --study digits --trial 0007"
    ) in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(store, tmp_path, capsys):
    assert run_trial_export(store, tmp_path / "none" / "x.safetensors") == 2
    assert "x.safetensors cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_checkpoint_of_another_tool_is_exported(network, tmp_path, capsys):
    torch.save(network.state_dict(), tmp_path / "clustered.pth")
    out = tmp_path / "model.pwfn.safetensors"
    source = ["--state-dict", str(tmp_path / "clustered.pth"), "--model", "digits_cnn", "--out", str(out)]
    assert export([*source, "--data", "digits"]) == 0
    assert "loaded from the file" in printed(capsys)["accuracy after"]
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in pwfn.load(out).state_dict().items())
    assert export(source) == 0
    assert "not measured: give --data" in printed(capsys)["accuracy"]


def test_a_state_dict_of_unknown_architecture_is_coded(tmp_path, capsys):
    state = {"a": torch.randint(3, (80, 70)) / 4, "b": torch.randn(40), "scale": torch.tensor(2.0)}
    save_file(state, tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    assert export(["--state-dict", str(tmp_path / "any.safetensors"), "--out", str(out)]) == 0
    assert "40 weights share too few values" in printed(capsys)["not coded"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_state(out).items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_coded_in_their_own_type(dtype, tmp_path, capsys):
    shared, free = (torch.randint(3, (80, 70)) / 4).to(dtype), torch.randn(30, 30).to(dtype)
    save_file({"shared": shared, "free": free}, tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    assert export(["--state-dict", str(tmp_path / "any.safetensors"), "--out", str(out)]) == 0
    capsys.readouterr()
    assert out.stat().st_size < 5_600 / 4 + free.nbytes + 500
    loaded = load_state(out)
    assert loaded["shared"].dtype == dtype
    assert torch.equal(loaded["shared"].float(), shared.float())
    assert torch.equal(loaded["free"].float(), free.float())


def test_a_sparse_tensor_is_named(tmp_path, capsys):
    torch.save({"mask": torch.eye(4).to_sparse()}, tmp_path / "any.pth")
    assert export(["--state-dict", str(tmp_path / "any.pth"), "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'any.pth'}: tensor mask is sparse_coo; only dense tensors can be written" in error


def test_tensors_that_only_zip_can_squeeze_are_deflated(tmp_path, capsys):
    save_file({"runs": torch.rand(20_000)[:, None].expand(-1, 7).contiguous()}, tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    assert export(["--state-dict", str(tmp_path / "any.safetensors"), "--out", str(out)]) == 0
    assert float(printed(capsys)["its zip"].split("bytes, ")[1].split()[0]) >= 1


def test_classes_channels_and_size_come_from_the_network(tmp_path, capsys):
    network = build_network(ModelConfig(name="test_vit"), num_classes=7, in_channels=2, image_size=96)
    state = dict(reversed(network.state_dict().items()))  # the classifier is not the last tensor
    save_file(state, tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    source = ["--state-dict", str(tmp_path / "any.safetensors"), "--model", "test_vit", "--out", str(out)]
    assert export([*source, "--image-size", "96"]) == 0
    assert pwfn.load(out).pretrained_cfg["input_size"] == (2, 96, 96)


def test_further_arguments_travel_with_the_file(tmp_path, capsys):
    import timm  # after pwfn's shim

    network = timm.create_model("test_vit", num_classes=7, patch_size=32)
    save_file(network.state_dict(), tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    source = ["--state-dict", str(tmp_path / "any.safetensors"), "--model", "test_vit", "--out", str(out)]
    assert export([*source, "--model-kwargs", "patch_size=32"]) == 0
    assert pwfn.load(out).patch_embed.patch_size == (32, 32)
    assert export([*source, "--model-kwargs", "patch_size"]) == 2
    assert "--model-kwargs: 'patch_size' is not of the form name=value" in capsys.readouterr().err
    assert export([*source, "--model-kwargs", "no_such=3"]) == 2
    assert "--image-size and --model-kwargs change that" in capsys.readouterr().err


def test_a_checkpoint_that_would_be_resampled_is_refused(tmp_path, capsys):
    """Position embeddings and patches of another size are new weights, which share no values."""
    network = build_network(ModelConfig(name="test_vit"), num_classes=7, in_channels=3, image_size=96)
    save_file(network.state_dict(), tmp_path / "any.safetensors")
    out = tmp_path / "any.pwfn.safetensors"
    source = ["--state-dict", str(tmp_path / "any.safetensors"), "--model", "test_vit", "--out", str(out)]
    assert export(source) == 2
    assert "pos_embed (1, 37, 64) would be resampled to (1, 101, 64)" in capsys.readouterr().err
    assert not out.exists()
    assert export([*source, "--image-size", "96", "--num-classes", "9"]) == 2
    assert "tells 7 classes apart, and --num-classes says 9" in capsys.readouterr().err
    assert export([*source, "--image-size", "128"]) == 0
    assert "1 resized (pos_embed)" in printed(capsys)["weights"]


def test_raw_weights_or_their_average_are_taken_and_said(network, tmp_path, capsys):
    state = network.state_dict()
    average = {name: tensor * 2 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": average}, tmp_path / "any.pth")
    out = tmp_path / "any.pwfn.safetensors"
    source = ["--state-dict", str(tmp_path / "any.pth"), "--model", "digits_cnn", "--out", str(out)]
    for options, expected, words in (
        ([], state, "under state_dict, a moving"),
        (["--ema"], average, "the moving average"),
    ):
        assert export([*source, *options]) == 0
        assert words in printed(capsys)["weights"]
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load_state(out).items())


def test_an_exported_file_is_converted(store, network, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out, plain = tmp_path / "model.pwfn.safetensors", tmp_path / "plain.safetensors"
    assert run_trial_export(store, out) == 0
    capsys.readouterr()
    assert export([str(out), "--safetensors", str(plain), "--onnx", str(tmp_path / "later.onnx")]) == 0
    lines = printed(capsys)
    assert "scores alike" in lines["onnx"]
    assert "onnxruntime computes the weights from the codebook when it loads the file" in lines["onnx at load"]
    loaded = load_file(plain)
    assert loaded.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.items())
    assert export([str(out), "--safetensors", str(out)]) == 2
    assert f"{out} would be written twice, or over what is converted" in capsys.readouterr().err


def test_files_are_kept_apart(store, network, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert run_trial_export(store, out, "--onnx", str(out)) == 2
    assert f"{out} would be written twice, or over what is exported" in capsys.readouterr().err
    source = tmp_path / "clustered.safetensors"
    save_file(network.state_dict(), source)
    content = source.read_bytes()
    assert export(["--state-dict", str(source), "--out", str(source)]) == 2
    assert f"{source} would be written twice, or over what is exported" in capsys.readouterr().err
    assert source.read_bytes() == content
    assert not out.exists()


def test_all_files_are_written_or_none(store, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out, "--onnx", str(tmp_path / "none" / "model.onnx")) == 2
    assert "model.onnx cannot be written: No such file or directory" in capsys.readouterr().err
    (tmp_path / "model.dense.onnx").mkdir()
    assert run_trial_export(store, out, "--onnx", str(tmp_path / "model.onnx")) == 2
    assert "model.dense.onnx cannot be written: Is a directory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.dense.onnx", "results"]


def test_an_exported_file_is_evaluated(store, network, tmp_path, capsys):
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out) == 0
    capsys.readouterr()
    assert evaluate([str(out), "--data", "digits", "--data-test-images", "200"]) == 0
    lines = printed(capsys)
    expected = evaluate_mean(network, TestImages(DataConfig(name="digits", test_images=200), network, batch_size=99))
    assert f"top-1 {expected.top1:.2%}" in lines["accuracy"]
    assert "on 200 images" in lines["accuracy"]
    assert "ensemble of 20" not in lines


def test_a_kept_posterior_is_evaluated(store, network, tmp_path, capsys):
    sigmas = {name: torch.zeros_like(p) for name, p in split_parameters(network).fixable.items()}
    write_trial(store, network, sigmas=sigmas)
    out = tmp_path / "model.pwfn.safetensors"
    assert run_trial_export(store, out) == 0
    capsys.readouterr()
    assert evaluate([str(out), "--data", "digits", "--ensemble-draws", "2"]) == 0
    lines = printed(capsys)
    assert lines["accuracy"].startswith(lines["ensemble of 2"])


def test_values_and_sizes_need_no_data(store, tmp_path, capsys):
    assert evaluate([store.model_path("0007")]) == 0
    assert "accuracy" not in printed(capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "parquet"], "--data: root is missing: data.name=parquet reads a folder"),
        (["--data", "digits", "--data-test-images", "0"], "--data-test-images: Input should be greater than or equal"),
        (["--data-root", "/nowhere/at/all"], "folder /nowhere/at/all does not exist"),
        (["--device", "warp"], "--device warp: "),
    ],
)
def test_wrong_options_are_named(store, capsys, options, message):
    assert evaluate([store.model_path("0007"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["f", "--onnx", "g"], "FILE is converted: give --onnx or --safetensors, and no --out"),
        (["--trial", "7", "--study", "s", "--safetensors", "f"], "--safetensors goes with FILE"),
        (["--state-dict", "f", "--num-classes", "3"], "--num-classes, --in-channels, --image-size and --model-kwargs"),
        (["--trial", "7"], "--study and --trial go together"),
        (["--trial", "7", "--study", "s", "--data", "digits"], "--model and --data go with --state-dict"),
        (["--state-dict", "f", "--onnx", "g"], "--onnx and --data need --model"),
        ([], "one of the arguments FILE --trial --state-dict is required"),
    ],
)
def test_options_that_do_not_go_together_are_refused(capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        export([*options, "--out", "x"])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--batch-size", "0"], ["--batch-size", "-3"], ["--ensemble-draws", "1.5"]])
def test_numbers_that_count_nothing_are_refused(store, capsys, options):
    with pytest.raises(SystemExit, match="2"):
        evaluate([store.model_path("0007"), *options])
    assert f"{options[0]}: '{options[1]}' is not a whole number of at least" in capsys.readouterr().err


def test_a_damaged_file_is_one_line(store, capsys):
    path = Path(store.model_path("0007"))
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    assert evaluate([str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {path}: the file is damaged: its bytes do not match its checksum; fetch it again\n"
    )


def test_a_checkpoint_of_another_architecture_is_named(tmp_path, capsys):
    save_file({"w": torch.ones(2, 2, 3, 3)}, tmp_path / "odd.safetensors")
    source = ["--state-dict", str(tmp_path / "odd.safetensors"), "--model", "digits_cnn", "--out", str(tmp_path / "x")]
    assert export(source) == 2
    assert "belongs to another architecture" in capsys.readouterr().err


def test_a_misspelt_architecture_is_named_before_its_classes_are_looked_for(tmp_path, capsys):
    save_file({"w": torch.ones(2, 2, 3, 3)}, tmp_path / "odd.safetensors")
    source = ["--state-dict", str(tmp_path / "odd.safetensors"), "--model", "resnet81", "--out", str(tmp_path / "x")]
    assert export(source) == 2
    assert "model.name: 'resnet81' is neither timm's nor ours; did you mean resnet" in capsys.readouterr().err
