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

from pwfn.config import DataConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.export.checked import Checked, whole_file, write_checked, write_checked_state
from pwfn.export.checkpoint import Given, describe_source, network_of
from pwfn.export.contents import contents_from, naming, read_contents
from pwfn.export.conversion import blank_image, make_onnx, onnx_paths
from pwfn.export.evaluation import TestImages, evaluate_ensemble, evaluate_mean
from pwfn.export.hardware import measure_hardware
from pwfn.export.layout import MAX_VALUES
from pwfn.export.metadata import ModelMetadata, Scalar, describe_network
from pwfn.export.network import build_from, stored_state
from pwfn.export.report import describe_file, describe_hardware, measure_file
from pwfn.export.state import RestDtype, encode_state
from pwfn.invocation import command_line
from pwfn.models import describe_coverage
from pwfn.models.checkpoints import read_state
from pwfn.parameters import split_parameters
from pwfn.results.store import ResultsStore

Lines = list[tuple[str, str]]
"""A report for people: labels and texts."""
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
        return onnx_paths(self.onnx)

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
        contents = contents_from(content)
        network = build_from(contents).to(target.device)
    config = _trial_config(store, trial_id, row)
    kept, seed = contents.metadata.class_names, config.split_seed
    images = TestImages(config.data, network, batch_size=target.batch_size, class_names=kept, seed=seed)
    names = list(contents.fixed)
    lines = _export(network, names, contents.metadata, target, images=images, recorded=row, sigmas=contents.sigmas)
    return [("float accuracy", _percent(row["float_test_top1"])), *lines]


def export_checkpoint(checkpoint: Path, model: str, target: Target, data: DataConfig | None, given: Given) -> Lines:
    """Export a state dict of a known architecture, whatever sharing its weights have.

    Raises:
        UserError: a checkpoint that cannot be read or does not fit, or a check failed.
    """
    target.keep_apart(checkpoint)
    network = network_of(checkpoint, model, given).to(target.device)
    images = None if data is None else TestImages(data, network, batch_size=target.batch_size)
    names = list(split_parameters(network).fixable)
    metadata = describe_network(network, provenance={"checkpoint": checkpoint.name})
    lines = _export(network, names, metadata, target, images=images, recorded={}, sigmas={})
    return [("weights", describe_source(network)), *lines]


def export_state(checkpoint: Path, target: Target, *, ema: bool = False) -> Lines:
    """Code a state dict of unknown architecture, each tensor in its own type; floating-point ones count as weights.

    Raises:
        UserError: a checkpoint that cannot be read, or no file can be written.
    """
    target.keep_apart(checkpoint)
    state = read_state(checkpoint, ema=ema)
    metadata = ModelMetadata(provenance={"checkpoint": checkpoint.name})
    fixed = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    with naming(checkpoint):
        content, lines = encode_no_larger_than_zip(fixed, rest, metadata)
    return [*describe_file(write_checked_state(target.out, content, state=state)), *lines]


def encode_no_larger_than_zip(
    fixed: Mapping[str, Tensor], rest: Mapping[str, Tensor], metadata: ModelMetadata, **options: Any
) -> tuple[bytes, Lines]:
    """Encode; where a zip of the same tensors would be smaller, deflate as zip does, and say so."""
    content = encode_state(fixed, rest, metadata, **options)
    report = measure_file(content)
    if report.file_bytes <= report.zip_bytes:
        return content, []
    deflated = encode_state(fixed, rest, metadata, **options, deflate_all=True)
    if len(deflated) >= len(content):
        return content, [("larger than zip", "the tensors are too few for the file's checksum and header to pay")]
    return deflated, [("deflated", f"as zip does, since that takes less: sharing values took {len(content):,} bytes")]


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
    images = TestImages(data, network, batch_size=batch_size, class_names=contents.metadata.class_names)
    mean = evaluate_mean(network, images)
    lines.append(("accuracy", f"top-1 {_percent(mean.top1)}, top-5 {_percent(mean.top5)} on {len(images):,} images"))
    if contents.sigmas and draws:
        found = evaluate_ensemble(network, contents.sigmas, images, draws=draws, seed=seed)
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
    content, fallback = encode_no_larger_than_zip(fixed, rest, metadata, rest_dtype=target.rest_dtype, sigmas=sigmas)
    sample = next(iter(images))[0][:SAMPLE].cpu() if images and target.onnx else None
    onnx_lines, onnx_files = make_onnx(contents_from(content), target.onnx_paths(), sample) if target.onnx else ([], {})
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
    shares = checked.report.metrics.unique_values <= MAX_VALUES
    cost = measure_hardware(network, blank_image(network), list(fixed.values())) if shares else None
    return [
        *describe_file(checked.report),
        *fallback,
        ("coverage", describe_coverage(network, names)),
        *_describe_accuracy(checked),
        *(describe_hardware(cost) if cost else []),
        *onnx_lines,
    ]


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


def _trial_config(store: ResultsStore, trial_id: str, row: Mapping[str, Any]) -> TrialConfig:
    try:
        return TrialConfig.model_validate_json(row["config_json"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f"study {store.study}: trial {trial_id}"
        raise UserError(f"{where}: its configuration is of another version of pwfn: {field}: {first['msg']}") from error
