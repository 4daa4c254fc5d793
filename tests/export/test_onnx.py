import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.export import describe_network
from pwfn.export.onnx import check_scores, describe_model, import_onnx, share_codebook, to_onnx
from pwfn.models import build_network, preprocessing_of
from pwfn.parameters import split_parameters

onnx = pytest.importorskip("onnx")


def build(name, channels, steps=32):
    network = build_network(ModelConfig(name=name), num_classes=5, in_channels=channels)
    with torch.no_grad():
        for parameter in split_parameters(network).fixable.values():
            parameter.copy_((parameter * steps).round() / steps + 0.0)  # no zero is negative
    side = network.pretrained_cfg["input_size"][-1]
    return network, torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(0))


def share(network, images):
    dense = to_onnx(network, images[:1])
    return dense, share_codebook(dense, split_parameters(network).fixable)


@pytest.mark.parametrize(("name", "channels"), [("digits_mlp", 1), ("cifar_resnet20", 3), ("test_vit", 3)])
def test_both_files_give_torchs_scores_for_any_number_of_images(name, channels):
    network, images = build(name, channels)
    dense, shared = share(network, images)
    assert check_scores(network, {Path("shared"): shared, Path("dense"): dense}, images) < 1e-4


def test_the_codebook_holds_the_distinct_values_and_is_gathered_by_every_layer():
    network, images = build("digits_cnn", 1)
    fixed = split_parameters(network).fixable
    graph = onnx.load_from_string(share(network, images)[1]).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = torch.cat([p.detach().flatten() for p in fixed.values()]).numpy()
    assert sorted(tensors["codebook"].tolist()) == np.unique(weights).tolist()
    gathered = {node.output[0] for node in graph.node if node.op_type == "Gather" and node.input[0] == "codebook"}
    assert gathered == set(fixed)
    for name, parameter in fixed.items():
        assert tensors[f"{name}.indices"].dtype == np.uint8
        assert np.array_equal(tensors["codebook"][tensors[f"{name}.indices"]], parameter.detach().numpy())
        assert name not in tensors


def test_more_than_256_values_take_wider_indices():
    network, images = build("digits_mlp", 1, steps=2**14)
    dense, shared = share(network, images)
    graph = onnx.load_from_string(shared).graph
    indices = [tensor for tensor in graph.initializer if tensor.name.endswith(".indices")]
    assert {onnx.numpy_helper.to_array(tensor).dtype for tensor in indices} == {np.dtype(np.uint16)}
    assert check_scores(network, {Path("shared"): shared, Path("dense"): dense}, images) < 1e-4


def test_the_file_with_a_codebook_is_small():
    network, images = build("cifar_resnet20", 3)
    dense, shared = share(network, images)
    assert len(shared) < 0.32 * len(dense)


def test_up_to_16_values_take_4_bits():
    network, images = build("cifar_resnet20", 3, steps=4)
    with torch.no_grad():
        for parameter in split_parameters(network).fixable.values():
            parameter.clamp_(-1, 1)
    dense, shared = share(network, images)
    graph = onnx.load_from_string(shared).graph
    indices = [tensor for tensor in graph.initializer if tensor.name.endswith(".indices")]
    assert {tensor.data_type for tensor in indices} == {onnx.TensorProto.UINT4}
    assert len(shared) < 0.19 * len(dense)
    assert check_scores(network, {Path("shared"): shared, Path("dense"): dense}, images) < 1e-4


def test_onnxruntime_computes_the_weights_at_load(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, images = build("digits_cnn", 1)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(share(network, images)[1], options, providers=["CPUExecutionProvider"])
    nodes = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Conv" in nodes
    assert "Gather" not in nodes


def test_class_names_and_preprocessing_stand_in_the_metadata():
    network, images = build("digits_cnn", 1)
    metadata = describe_network(network, class_names=tuple("abcde"))
    model = onnx.load_from_string(describe_model(to_onnx(network, images[:1]), metadata))
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert found["class_names"] == list("abcde")
    assert found["mean"] == list(preprocessing_of(network).mean)


def test_a_network_that_shares_nothing_is_refused():
    network = build_network(ModelConfig(name="cifar_resnet20"), num_classes=5, in_channels=3)
    dense = to_onnx(network, torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"onnx: \d+ distinct values share too little for a codebook; at most 65,536"):
        share_codebook(dense, split_parameters(network).fixable)


def test_scores_that_differ_are_refused():
    network, images = build("digits_mlp", 1)
    dense, shared = share(network, images)
    other, _ = build("digits_mlp", 1, steps=4)
    with pytest.raises(UserError, match="onnx: other and shared give different scores"):
        check_scores(network, {Path("shared"): shared, Path("other"): share(other, images)[0]}, images)
    with pytest.raises(UserError, match="onnx: dense gives scores that differ from torch's by"):
        check_scores(other, {Path("dense"): dense}, images)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"--onnx needs onnx and onnxruntime: pip install 'pwfn\[onnx\]'"):
        import_onnx()
