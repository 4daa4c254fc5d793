"""An exported file to the files of other programs: ONNX, and plain safetensors."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pwfn.errors import UserError
from pwfn.export.checked import whole_file
from pwfn.export.contents import Contents, naming, read_contents
from pwfn.export.metadata import metadata_to_json
from pwfn.export.network import build_from
from pwfn.export.onnx import check_scores, describe_model, share_codebook, to_onnx

Lines = list[tuple[str, str]]
"""A report for people: labels and texts."""
SAMPLE = 32
"""Images on which ONNX's scores are compared."""


def convert(source: Path, *, onnx: Path | None, safetensors: Path | None) -> Lines:
    """Write what an exported file holds as ONNX, as plain safetensors, or both.

    Raises:
        UserError: a file that cannot be read or written, or a network that ONNX cannot hold.
    """
    paths = [*onnx_paths(onnx), *([safetensors] if safetensors else [])]
    for path in paths:
        if [source.resolve(), *(each.resolve() for each in paths)].count(path.resolve()) > 1:
            raise UserError(f"{path} would be written twice, or over what is converted; name another file")
    contents = read_contents(source)
    with naming(source):
        lines, files = make_onnx(contents, onnx_paths(onnx), None) if onnx else ([], {})
    if safetensors is not None:
        files[safetensors] = to_safetensors(contents)
        lines.append(("safetensors", f"{safetensors} ({len(files[safetensors]):,} bytes)"))
    with ExitStack() as open_files:  # all files stay, or none
        for path, content in files.items():
            open_files.enter_context(whole_file(path, content))
    return lines


def to_safetensors(contents: Contents) -> bytes:
    """Write a file's tensors as any program reads them, with the metadata as JSON under `pwfn`."""
    state = {name: tensor.contiguous() for name, tensor in contents.state.items()}
    return bytes(save(state, {"format": "pt", "pwfn.model": metadata_to_json(contents.metadata)}))


def onnx_paths(path: Path | None) -> tuple[Path, ...]:
    """Where the ONNX file with a codebook goes, and the dense one."""
    return () if path is None else (path, path.with_suffix(f".dense{path.suffix}"))


def make_onnx(contents: Contents, paths: tuple[Path, ...], sample: Tensor | None) -> tuple[Lines, dict[Path, bytes]]:
    """Make both ONNX files of what an exported file holds, and compare their scores with torch's.

    Args:
        contents: of the file.
        paths: of `onnx_paths`.
        sample: images to compare on; None takes random ones.

    Raises:
        UserError: the file names no architecture, or ONNX cannot hold the network.
    """
    network = build_from(contents)
    blank = blank_image(network)
    dense = describe_model(to_onnx(network, blank), contents.metadata)
    files = dict(zip(paths, (share_codebook(dense, contents.fixed), dense), strict=True))
    images = torch.randn(SAMPLE, *blank.shape[1:]) if sample is None else sample
    difference = check_scores(network, files, images)
    sizes = " and ".join(f"{file} ({len(model):,} bytes)" for file, model in files.items())
    return [
        ("onnx", f"{sizes}; scores alike, and as torch's to {difference:.1g}"),
        ("onnx at load", "onnxruntime computes the weights from the codebook when it loads the file, and keeps them as "
                         "float32: the codebook saves disk and transfer, no memory and no time"),
    ], files  # fmt: skip


def blank_image(network: Any) -> Tensor:
    """A black image on the network's device."""
    channels, height, width = network.pretrained_cfg["input_size"]
    return torch.zeros(1, channels, height, width, device=next(network.parameters()).device)
