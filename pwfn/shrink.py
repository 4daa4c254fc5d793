"""Fewer values for an exported network: they are merged, trained on request, recalibrated, written and checked."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from pwfn.config import (
    Assignment,
    Augmentation,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    QatConfig,
    TrainingConfig,
    TrialConfig,
)
from pwfn.errors import UserError
from pwfn.export.checked import write_checked
from pwfn.export.command import encode_no_larger_than_zip
from pwfn.export.contents import Contents, naming, read_contents
from pwfn.export.evaluation import TestImages, evaluate_mean
from pwfn.export.metadata import Scalar
from pwfn.export.network import build_from, stored_state
from pwfn.export.report import FileReport, measure_file
from pwfn.methods.gpfq.network import assign_layerwise_
from pwfn.methods.kmeans.method import finite_array, relative_importance
from pwfn.methods.kmeans.values import FloatArray, kmeans_values, nearest_values
from pwfn.methods.qat.learner import StraightThroughLearner
from pwfn.methods.qat.method import start_stage_
from pwfn.methods.qat.weights import SharedWeights
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.task import Task
from pwfn.training import Accuracy, batchnorm_layers

log = logging.getLogger(__name__)

MAX_VALUES = 4096
"""Largest number of values after merging, the limit of `kmeans_values`."""
MAX_TRAINED_VALUES = 256
"""Largest number of values that can be trained, the limit of `QatConfig`."""
TRAINING = TrainingConfig(
    optimizer="adam", lr=1e-3, lr_schedule="cosine", weight_decay=0.0, distillation=1.0, temperature=2.0
)
"""How each smaller network is trained: towards the predictions of the network in the given file."""
NO_SIGMAS = "the sigmas of the file are left out of the smaller ones: they say how far its own values may move"


@dataclass(frozen=True)
class Wish:
    """The smaller networks that the user asks for."""

    sizes: tuple[int, ...]
    """Number of values of each smaller network, each smaller than the one before."""
    out: Path
    """Folder of the new files."""
    weighting: Literal["plain", "fisher"] = "plain"
    """Importance of weights when values are merged; fisher needs data."""
    assignment: Assignment = "nearest"
    """How weights get the merged values, as `KmeansConfig.assignment`; all but nearest need data."""
    epochs: int = 0
    """Number of epochs for which each smaller network is trained; more than 0 needs data."""
    batch_size: int = 512
    """Number of images per forward pass, except in training."""
    device: str | torch.device = "cpu"
    augmentation: Augmentation | None = None
    """Of the images on which BatchNorm is recalibrated and the networks are trained; None: as the file records, or that
    of `DataConfig`."""


@dataclass(frozen=True)
class Shrunk:
    """One network of the series: the given one, or a smaller one."""

    path: Path
    report: FileReport
    accuracy: Accuracy | None
    """Accuracy on the test images; None without data."""
    left_out: str = ""
    """A sentence that says what the given file has and the smaller ones do not; empty if they have all of it."""


def shrink(path: Path, data: DataConfig | None, wish: Wish) -> Iterator[Shrunk]:
    """Measure an exported network, then write smaller ones, each made from the one before.

    Each network is yielded when its file is written.

    Raises:
        UserError: the file, the data or the wish cannot be used, or a new file fails its check; such a file is removed.
        NonFiniteLossError, DivergedWeightsError: the loss or a weight became NaN or infinite in training.
    """
    contents = read_contents(path)
    with naming(path):
        report = measure_file(path.read_bytes())
        _check_wish(wish, report.metrics.unique_values, has_data=data is not None)
        network = build_from(contents).to(wish.device)
        _check_fixed_set(contents, network, wish)
    if data is not None:
        data = data.model_copy(update={"augmentation": _augmentation(path, contents, network, wish)})
    names = contents.metadata.class_names
    images = None if data is None else TestImages(data, network, batch_size=wish.batch_size, class_names=names)
    _check_folder(wish.out, [place_of(path, wish.out, size) for size in wish.sizes])
    task = None if data is None or images is None else _task(network, data, images, contents, wish)
    accuracy = _measured(network, images, path.name)
    yield Shrunk(path, report, accuracy, NO_SIGMAS if contents.sigmas else "")
    latent = SharedWeights(task.parameter_sets, _stages(wish)) if task and wish.epochs > 0 else None
    for size in wish.sizes:
        if task is not None and latent is not None:
            _train_(task, latent, size, wish)
        else:
            parameters = [dict(network.named_parameters())[name] for name in contents.fixed]
            _merge_(parameters, size, _importance(task, wish), task, wish.assignment)
        if task is not None:
            task.recalibrate()
        yield _written(network.eval(), place_of(path, wish.out, size), path, contents, images)


@torch.no_grad()
def _merge_(
    parameters: Sequence[nn.Parameter],
    num_values: int,
    importance: FloatArray | None,
    task: Task | None,
    assignment: Assignment,
) -> None:
    """Merge the values that all parameters share into fewer values.

    Args:
        parameters: those that share the values; changed in place.
        num_values: number of values afterwards.
        importance: positive, of each weight in the order of the parameters, `(num_weights,)`; None: all count alike.
        task: whose network the parameters belong to; unused with nearest.
        assignment: how the weights get the merged values; with nearest weights with equal values stay equal.
    """
    weights = finite_array("the weights", torch.cat([parameter.flatten() for parameter in parameters]))
    values = kmeans_values(weights, num_values, importance)
    if task is not None and assignment != "nearest":
        codebook = torch.from_numpy(values).to(parameters[0])
        assign_layerwise_(task, lambda _: codebook, assignment, calibration_images=QatConfig().calibration_images)
        return
    merged = torch.from_numpy(nearest_values(weights, values))
    for parameter, part in zip(parameters, torch.split(merged, [each.numel() for each in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


def place_of(path: Path, out: Path, num_values: int) -> Path:
    """Path of the file with so many values: `NAME-16-values.pwfn.safetensors`."""
    name = path.name.removesuffix(".safetensors").removesuffix(".pwfn")
    return out / f"{name}-{num_values}-values.pwfn.safetensors"


def _stages(wish: Wish) -> QatConfig:
    """The stages of training for a wish."""
    return QatConfig(stages=wish.sizes, stage_start="latent" if wish.assignment == "nearest" else wish.assignment)


def _train_(task: Task, weights: SharedWeights, num_values: int, wish: Wish) -> None:
    """Choose values for the latent weights and train both as qat does.

    The latent weights begin as the weights of the given file and continue from each smaller network to the next; unless
    `assignment` is nearest, each smaller network begins at the values that it gives to the one before.
    """
    num_steps = task.num_steps(TRAINING)
    start_stage_(task, weights, num_values, _importance(task, wish))
    steps_in_all = wish.epochs * num_steps
    descent = weights.descent(TRAINING, num_steps=steps_in_all, replicas=task.replicas)
    learner = StraightThroughLearner(task.network, weights, descent, num_steps=steps_in_all)
    labels = [f"{num_values} values epoch {epoch + 1}" for epoch in range(wish.epochs)]
    list(task.train_epochs(learner, labels, num_steps=num_steps, batch_size=TRAINING.batch_size))
    weights.assign_()
    finite_array("the weights", weights.shown)


def _importance(task: Task | None, wish: Wish) -> FloatArray | None:
    """Importance of each weight to the present network, `(num_weights,)`; None: all weights count alike."""
    if task is None or wish.weighting == "plain":
        return None
    fisher = task.fisher(QatConfig().fisher_images)
    return relative_importance(finite_array("the Fisher information", fisher))


def _task(network: nn.Module, data: DataConfig, images: TestImages, contents: Contents, wish: Wish) -> Task:
    architecture = contents.metadata.architecture
    assert architecture is not None  # it was built
    config = TrialConfig(
        model=ModelConfig(name=architecture.name),
        data=data,
        training=TRAINING if wish.epochs > 0 else TRAINING.model_copy(update={"distillation": 0.0}),
        method=QatConfig(),
        evaluation=EvaluationConfig(batch_size=wish.batch_size),
    )
    return Task(network, images.data, config, images.device, Replicas()).ready()


def _written(network: nn.Module, place: Path, source: Path, contents: Contents, images: TestImages | None) -> Shrunk:
    """Write the present network, load the file again, and measure the loaded network."""
    state: dict[str, Tensor] = stored_state(network)
    fixed = {name: state[name] for name in contents.fixed}
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    provenance = {**contents.metadata.provenance, "shrunk_from": source.name}
    accuracy = _measured(network, images, place.name)
    metrics: dict[str, Scalar] = {} if accuracy is None else {"test_top1": accuracy.top1}
    metadata = dataclasses.replace(contents.metadata, metrics=metrics, provenance=provenance)
    content, _ = encode_no_larger_than_zip(fixed, rest, metadata)
    checked = write_checked(
        place, content, network, fixed=fixed, exact=True, images=images, recorded={}, before=accuracy
    )
    return Shrunk(place, checked.report, checked.after)


def _measured(network: nn.Module, images: TestImages | None, name: str) -> Accuracy | None:
    if images is None:
        return None
    log.info("%s: measuring on %d test images", name, len(images))
    return evaluate_mean(network, images)


def _augmentation(path: Path, contents: Contents, network: nn.Module, wish: Wish) -> Augmentation:
    """Find how training images are augmented; warn where nothing says it and BatchNorm depends on it.

    Statistics of other images than in training cost points of accuracy (docs/log.md, "On which images should BatchNorm
    be recalibrated?").
    """
    if wish.augmentation is not None:
        return wish.augmentation
    recorded = contents.metadata.provenance.get("augmentation")
    if recorded in get_args(Augmentation):
        return cast(Augmentation, recorded)
    default: Augmentation = DataConfig.model_fields["augmentation"].default
    if batchnorm_layers(network):
        log.warning(
            "%s does not record how its training images were augmented: BatchNorm is recalibrated with %s; if that is "
            "not what they had, accuracy is lost: give --augmentation",
            path,
            default,
        )
    return default


def _check_wish(wish: Wish, num_values: int, *, has_data: bool) -> None:
    """Check the wish before anything is written.

    Raises:
        UserError: it cannot be fulfilled.
    """
    sizes = " ".join(map(str, wish.sizes))
    if any(later >= earlier for earlier, later in pairwise(wish.sizes)):
        raise UserError(f"--values {sizes}: the counts must fall, each below the one before")
    if wish.sizes[0] >= num_values:
        raise UserError(f"--values {sizes}: the file has {num_values} values; ask for fewer than that")
    most = MAX_TRAINED_VALUES if wish.epochs > 0 else MAX_VALUES
    if wish.sizes[0] > most:
        raise UserError(f"--values {sizes}: at most {most} values can be {'trained' if wish.epochs else 'merged into'}")
    if not has_data and wish.weighting == "fisher":
        raise UserError("--weighting fisher needs training images: give --data, or --weighting plain")
    if not has_data and wish.assignment != "nearest":
        raise UserError(f"--assignment {wish.assignment} needs training images: give --data, or --assignment nearest")
    if not has_data and wish.epochs > 0:
        raise UserError(f"--epochs {wish.epochs} needs training images: give --data, or --epochs 0")
    if not has_data and wish.augmentation is not None:
        raise UserError(f"--augmentation {wish.augmentation} changes training images: give --data, or leave it out")


def _check_fixed_set(contents: Contents, network: nn.Module, wish: Wish) -> None:
    """Check that what needs the usual fixed set is not asked for a file that has another.

    Fisher information, training and all assignments but nearest need it.

    Raises:
        UserError: the file has another fixed set.
    """
    usual = list(split_parameters(network).fixable)
    is_plain = wish.weighting == "plain" and wish.assignment == "nearest" and wish.epochs == 0
    if list(contents.fixed) != usual and not is_plain:
        other = sorted(set(usual).symmetric_difference(contents.fixed)) or ["the order"]
        raise UserError(
            f"its values are shared by other tensors than training would use ({other[0]}, {len(other)} in all), "
            "so it can only be merged: use --weighting plain, --assignment nearest and --epochs 0"
        )


def _check_folder(out: Path, places: Sequence[Path]) -> None:
    """Make the folder and check that the files can be written there.

    Raises:
        UserError: the folder cannot be written, or a file exists already.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be written: {error.strerror or error}") from error
    for place in places:
        if place.exists():
            raise UserError(f"{place} is there already; give another --out, or remove it")
