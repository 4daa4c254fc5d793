"""What `pwfn export` does: a trial's network, or a checkpoint of any tool, to a checked file and its report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pwfn.config import DataConfig, ModelConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.export.checked import Checked, whole_file, write_checked, write_checked_state
from pwfn.export.codec import worth_coding
from pwfn.export.container import unpack
from pwfn.export.evaluation import TestImages, evaluate_ensemble, evaluate_mean
from pwfn.export.hardware import measure_hardware
from pwfn.export.metadata import ModelMetadata, Scalar, describe_network
from pwfn.export.network import RestDtype, build_from, decode_sigmas, encode_state, naming, read_contents, stored_state
from pwfn.export.onnx import check_scores, share_codebook, to_onnx
from pwfn.export.report import describe_file, describe_hardware, measure_file
from pwfn.invocation import command_line
from pwfn.models import build_network, describe_coverage
from pwfn.models.checkpoints import read_state
from pwfn.parameters import split_parameters
from pwfn.results.store import ResultsStore

Lines = list[tuple[str, str]]
"""A report for people: labels and texts."""
HALF_BYTES = 2
"""What a weight takes in half precision; others are coded, and become float32, only where they then take less."""
SAMPLE = 32
"""Images on which ONNX's scores are compared."""


@dataclass(frozen=True)
class Target:
    """What to write."""

    out: Path
    rest_dtype: RestDtype = "float32"
    onnx: Path | None = None
    """Where the ONNX file with a codebook goes; the dense one beside it, as `NAME.dense.onnx`."""
    device: str | torch.device = "cpu"
    """Where accuracy is measured."""
    batch_size: int = 512
    """Images per pass."""

    def onnx_paths(self) -> tuple[Path, ...]:
        """The ONNX file with a codebook and the dense one, if they are wanted."""
        return () if self.onnx is None else (self.onnx, self.onnx.with_suffix(f".dense{self.onnx.suffix}"))

    def keep_apart(self, *sources: Path) -> None:
        """Refuse to write two files to one place, or over what is read.

        Raises:
            UserError: names the path.
        """
        places = [path.resolve() for path in (*sources, self.out, *self.onnx_paths())]
        for place in places:
            if places.count(place) > 1:
                raise UserError(f"{place} would be written twice, or over what is exported; name another file")


def export_trial(store: ResultsStore, trial_id: str, target: Target) -> Lines:
    """Export a finished trial's network; measure it on the trial's own test images.

    Raises:
        UserError: no such trial, its network was not kept, or a check failed.
    """
    target.keep_apart()
    row = store.require_trial(trial_id)
    if row["state"] != "complete":
        raise UserError(f"study {store.study}: trial {trial_id} is {row['state']}; only a complete one can be exported")
    content = store.read_model(trial_id)
    if content is None:
        again = command_line("train", "--results", store.results, "--study", store.study, "--trial", trial_id)
        raise UserError(
            f"study {store.study}: the network of trial {trial_id} was not kept; "
            f"run it again with its own seed: {again}"
        )
    with naming(store.model_path(trial_id)):
        contents = unpack(content)
        network = build_from(contents).to(target.device)
    config = _trial_config(store, trial_id, row)
    seed = config.seed if config.data.split_seed is None else config.data.split_seed
    kept = contents.description.model.class_names
    images = TestImages(config.data, network, batch_size=target.batch_size, class_names=kept, seed=seed)
    names = [layer.name for layer in contents.description.layers]
    metadata = contents.description.model
    lines = _export(network, names, metadata, target, images=images, recorded=row, sigmas=decode_sigmas(contents))
    return [("float accuracy", _percent(row["float_test_top1"])), *lines]


def export_checkpoint(checkpoint: Path, model: str, target: Target, data: DataConfig | None) -> Lines:
    """Export a state dict of a known architecture, whatever sharing its weights have.

    The numbers of classes and channels come from its first convolution and its last tensor.

    Raises:
        UserError: a checkpoint that cannot be read or does not fit, or a check failed.
    """
    target.keep_apart(checkpoint)
    state = read_state(checkpoint)
    network = build_network(
        ModelConfig(name=model, checkpoint=str(checkpoint)),
        num_classes=_classes_of(state, checkpoint),
        in_channels=_channels_of(state),
    ).to(target.device)
    images = None if data is None else TestImages(data, network, batch_size=target.batch_size)
    names = list(split_parameters(network).fixable)
    metadata = describe_network(network, provenance={"checkpoint": checkpoint.name})
    return _export(network, names, metadata, target, images=images, recorded={}, sigmas={})


def export_state(checkpoint: Path, target: Target) -> Lines:
    """Code a state dict of unknown architecture: every floating-point tensor that shares enough values.

    Tensors of other precisions are coded where float32 has their values too, and are float32 when they are read.

    Raises:
        UserError: a checkpoint that cannot be read, or no file can be written.
    """
    target.keep_apart(checkpoint)
    state = read_state(checkpoint)
    fixed = {name: tensor for name, tensor in state.items() if tensor.dtype == torch.float32 and tensor.ndim > 0}
    others = {name: tensor.float() for name, tensor in state.items() if name not in fixed and _fits_float32(tensor)}
    shared = worth_coding({name: tensor.numpy() for name, tensor in others.items()}, stored_bytes=HALF_BYTES)
    fixed |= {name: others[name] for name in shared}
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    metadata = ModelMetadata(provenance={"checkpoint": checkpoint.name})
    content = encode_state(fixed, rest, metadata, rest_dtype=target.rest_dtype)
    return describe_file(write_checked_state(target.out, content, fixed=fixed))


def evaluate_file(
    path: Path, data: DataConfig | None, *, device: torch.device, batch_size: int, draws: int, seed: int
) -> Lines:
    """Count what a file holds, and measure its network on test images; None measures no accuracy.

    Raises:
        UserError: a file that cannot be read, or data that does not fit its network.
    """
    contents = read_contents(path)
    with naming(path):
        lines = describe_file(measure_file(path.read_bytes()))
        if data is None:
            return lines
        network = build_from(contents).to(device)
    images = TestImages(data, network, batch_size=batch_size, class_names=contents.description.model.class_names)
    mean = evaluate_mean(network, images)
    lines.append(("accuracy", f"top-1 {_percent(mean.top1)}, top-5 {_percent(mean.top5)} on {len(images):,} images"))
    sigmas = decode_sigmas(contents)
    if sigmas and draws:
        found = evaluate_ensemble(network, sigmas, images, draws=draws, seed=seed)
        lines.append((f"ensemble of {draws}", f"top-1 {_percent(found.top1)}, top-5 {_percent(found.top5)}"))
    return lines


def _export(
    network: nn.Module,
    names: list[str],
    metadata: ModelMetadata,
    target: Target,
    *,
    images: TestImages | None,
    recorded: Mapping[str, Scalar],
    sigmas: Mapping[str, Tensor],
) -> Lines:
    state = stored_state(network)
    fixed = {name: state[name] for name in names}
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    content = encode_state(fixed, rest, metadata, rest_dtype=target.rest_dtype, sigmas=sigmas)
    onnx_lines, onnx_files = _make_onnx(content, names, target, images) if target.onnx else ([], {})
    with ExitStack() as files:  # all files stay, or none
        for path, model in onnx_files.items():
            files.enter_context(whole_file(path, model))
        checked = write_checked(
            target.out,
            content,
            network,
            fixed=fixed,
            exact=target.rest_dtype == "float32",
            images=images,
            recorded=recorded,
        )
    cost = measure_hardware(network, _blank_image(network), list(fixed.values()))
    return [
        *describe_file(checked.report),
        ("coverage", describe_coverage(network, names)),
        *_describe_accuracy(checked),
        *describe_hardware(cost),
        *onnx_lines,
    ]


def _make_onnx(
    content: bytes, names: list[str], target: Target, images: TestImages | None
) -> tuple[Lines, dict[Path, bytes]]:
    """Make both ONNX files of what the exported file holds, and compare their scores with torch's."""
    network = build_from(unpack(content))
    blank = _blank_image(network)
    dense = to_onnx(network, blank)
    files = dict(zip(target.onnx_paths(), (share_codebook(dense, names), dense), strict=True))
    sample = next(iter(images))[0][:SAMPLE].cpu() if images else torch.randn(SAMPLE, *blank.shape[1:])
    difference = check_scores(network, files, sample)
    sizes = " and ".join(f"{file} ({len(model):,} bytes)" for file, model in files.items())
    return [("onnx", f"{sizes}; scores alike, and as torch's to {difference:.1g}")], files


def _describe_accuracy(checked: Checked) -> Lines:
    before, after = checked.before, checked.after
    if before is None or after is None:
        return [("accuracy", "not measured: give --data")]
    return [
        ("accuracy before", f"top-1 {_percent(before.top1)}, top-5 {_percent(before.top5)} on the test images"),
        ("accuracy after", f"top-1 {_percent(after.top1)}, top-5 {_percent(after.top5)}, loaded from the file"),
    ]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"


def _blank_image(network: Any) -> Tensor:
    channels, height, width = network.pretrained_cfg["input_size"]
    return torch.zeros(1, channels, height, width, device=next(network.parameters()).device)


def _fits_float32(tensor: Tensor) -> bool:
    """Whether a tensor of floating-point numbers has none that float32 lacks."""
    return tensor.is_floating_point() and torch.equal(tensor.float().to(tensor.dtype).nan_to_num(), tensor.nan_to_num())


def _trial_config(store: ResultsStore, trial_id: str, row: Mapping[str, Any]) -> TrialConfig:
    try:
        return TrialConfig.model_validate_json(row["config_json"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f"study {store.study}: trial {trial_id}"
        raise UserError(f"{where}: its configuration is of another version of pwfn: {field}: {first['msg']}") from error


def _classes_of(state: Mapping[str, Tensor], checkpoint: Path) -> int:
    """Rows of the last weight or bias: the classifier comes last."""
    rows = [len(tensor) for tensor in state.values() if tensor.ndim in (1, 2)]
    if not rows:
        raise UserError(f"{checkpoint} has no tensor of one or two dimensions, so no classifier; leave --model out")
    return rows[-1]


def _channels_of(state: Mapping[str, Tensor]) -> int:
    """Input channels of the first convolution, or 1 where there is none."""
    return next((tensor.shape[1] for tensor in state.values() if tensor.ndim == 4), 1)
