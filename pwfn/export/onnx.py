"""The network as ONNX: weights as they are, or as one codebook from which each layer gathers its own.

onnxruntime folds the gathering into plain float32 weights when it loads the file (checked in the tests): the codebook
saves disk and transfer, no memory and no time.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pwfn.errors import UserError
from pwfn.export.metadata import ModelMetadata
from pwfn.export.palettes import distinct_bits

OPSET = 17
OPSET_OF_4_BITS = 21
"""First version in which numbers of 4 bits can be cast."""
MAX_4_BITS = 16
CODEBOOK = "codebook"
TOLERANCE = 1e-3
"""Largest difference between torch's and onnxruntime's scores, relative to the largest score (or 1)."""


def import_onnx() -> tuple[Any, Any]:
    """Import onnx and onnxruntime.

    Raises:
        UserError: they are not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx needs onnx and onnxruntime: pip install 'pwfn[onnx]' ({error})") from error
    return onnx, onnxruntime


def to_onnx(network: nn.Module, image: torch.Tensor) -> bytes:
    """Write a network as ONNX with dense float32 weights; any number of images.

    Args:
        network: in evaluation mode, on the CPU.
        image: an input, float32 `(1, channels, height, width)`.
    """
    import_onnx()
    target = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that torch prefers needs one more package and renames weights; this one keeps their names.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (image,),
            target,  # type: ignore[arg-type]  # with dynamo=False a stream will do
            dynamo=False,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,  # else BatchNorm is folded into weights, which shares no values
            do_constant_folding=False,
            opset_version=OPSET,
        )
    return _raise_version(target.getvalue())


def _raise_version(model: bytes) -> bytes:
    """Translate to the version that knows numbers of 4 bits; a network that cannot be translated keeps its own."""
    onnx, _ = import_onnx()
    from onnx import version_converter

    try:
        proto = version_converter.convert_version(onnx.load_from_string(model), OPSET_OF_4_BITS)
        onnx.checker.check_model(proto)
    except Exception:  # the converter raises nearly anything
        return model
    return bytes(proto.SerializeToString())


def share_codebook(model: bytes, names: Iterable[str]) -> bytes:
    """Replace the named weights of an ONNX file by indices into one codebook.

    Each becomes Gather(codebook, Cast(indices)), indices of 4 bits for up to 16 values, 8 for up to 256, else 16. The
    values are the same to the bit.

    Raises:
        UserError: the weights have more than 65,536 distinct values.
    """
    onnx, _ = import_onnx()
    graph = (proto := onnx.load_from_string(model)).graph
    wanted = set(names)
    dense = {tensor.name: tensor for tensor in graph.initializer if tensor.name in wanted}
    bits = {name: onnx.numpy_helper.to_array(tensor).view(np.uint32) for name, tensor in dense.items()}
    codebook = distinct_bits(np.concatenate([array.reshape(-1) for array in bits.values()]))
    if len(codebook) > 1 << 16:
        raise UserError(
            f"onnx: {len(codebook)} distinct values share too little for a codebook; at most 65,536 are possible"
        )
    nodes = []
    bits_of_index = _bits_of_index(len(codebook), proto.opset_import)
    for name, tensor in dense.items():
        graph.initializer.remove(tensor)
        indices = np.searchsorted(codebook, bits[name])
        graph.initializer.append(_indices(onnx, f"{name}.indices", indices, bits_of_index))
        cast = onnx.helper.make_node("Cast", [f"{name}.indices"], [f"{name}.positions"], to=onnx.TensorProto.INT32)
        nodes += [cast, onnx.helper.make_node("Gather", [CODEBOOK, f"{name}.positions"], [name])]
    graph.initializer.append(onnx.numpy_helper.from_array(codebook.view(np.float32), CODEBOOK))
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _bits_of_index(num_values: int, opsets: Iterable[Any]) -> int:
    if num_values > 1 << 8:
        return 16
    knows_4_bits = any(each.domain in ("", "ai.onnx") and each.version >= OPSET_OF_4_BITS for each in opsets)
    return 4 if num_values <= MAX_4_BITS and knows_4_bits else 8


def _indices(onnx: Any, name: str, indices: np.ndarray[Any, Any], num_bits: int) -> Any:
    if num_bits > 4:
        return onnx.numpy_helper.from_array(indices.astype(np.uint8 if num_bits == 8 else np.uint16), name)
    flat = np.append(indices.reshape(-1), np.zeros(indices.size % 2, indices.dtype)).astype(np.uint8)
    packed = (flat[::2] | flat[1::2] << 4).tobytes()
    return onnx.helper.make_tensor(name, onnx.TensorProto.UINT4, indices.shape, packed, raw=True)


def describe_model(model: bytes, metadata: ModelMetadata) -> bytes:
    """Write class names and pre-processing into an ONNX file's metadata, each as JSON under its own key."""
    onnx, _ = import_onnx()
    proto = onnx.load_from_string(model)
    known: dict[str, Any] = {} if metadata.preprocessing is None else asdict(metadata.preprocessing)
    if metadata.class_names is not None:
        known["class_names"] = metadata.class_names
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in known.items()})
    return bytes(proto.SerializeToString())


def check_scores(network: nn.Module, models: dict[Path, bytes], images: torch.Tensor) -> float:
    """Run ONNX files in onnxruntime and compare their scores with the network's; return the largest difference.

    Raises:
        UserError: the files differ from each other at all, or from torch by more than TOLERANCE.
    """
    _, onnxruntime = import_onnx()
    with torch.inference_mode():
        expected = network(images).numpy()
    scores = {path: _run(onnxruntime, model, images.numpy()) for path, model in models.items()}
    first, *others = scores
    for path in others:
        if not np.array_equal(scores[path], scores[first]):
            raise UserError(f"onnx: {path} and {first} give different scores")
    difference = float(np.abs(scores[first] - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserError(f"onnx: {first} gives scores that differ from torch's by {difference:.2g}")
    return difference


def _run(onnxruntime: Any, model: bytes, images: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"images": images})[0]
