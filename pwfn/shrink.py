"""Fewer values for a finished network: merged, recalibrated, trained a little if asked for, written and checked."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pwfn.config import DataConfig, EvaluationConfig, ModelConfig, QatConfig, TrainingConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.export.checked import write_checked
from pwfn.export.command import encode_no_larger_than_zip
from pwfn.export.contents import Contents, naming, read_contents
from pwfn.export.evaluation import TestImages, evaluate_mean
from pwfn.export.metadata import Scalar
from pwfn.export.network import build_from, stored_state
from pwfn.export.report import FileReport, measure_file
from pwfn.methods.kmeans.method import finite_array, relative_importance
from pwfn.methods.kmeans.values import FloatArray, kmeans_values, nearest_values
from pwfn.methods.qat.learner import StraightThroughLearner
from pwfn.methods.qat.weights import SharedWeights
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.task import Task
from pwfn.training import Accuracy

MAX_VALUES = 4096
"""Most values that weights are merged into: of `kmeans_values`."""
MAX_TRAINED_VALUES = 256
"""Most values that are trained: of `QatConfig`."""
TRAINING = TrainingConfig(
    optimizer="adam", lr=1e-3, lr_schedule="cosine", weight_decay=0.0, distillation=1.0, temperature=2.0
)
"""How stages train: towards the predictions of the network that was given."""
NO_SIGMAS = "the sigmas of the file are left out of the smaller ones: they say how far its own values may move"


@dataclass(frozen=True)
class Wish:
    """What is asked for."""

    sizes: tuple[int, ...]
    """Values of each smaller network, falling."""
    out: Path
    """Folder of the files."""
    weighting: Literal["plain", "fisher"] = "plain"
    """Importance of a weight where values are merged; fisher needs data."""
    epochs: int = 0
    """Training of each stage; needs data."""
    batch_size: int = 512
    """Images per pass when nothing is trained."""
    device: str | torch.device = "cpu"


@dataclass(frozen=True)
class Shrunk:
    """A network of the row: the one that was given, or a smaller one."""

    path: Path
    report: FileReport
    accuracy: Accuracy | None
    """On the test images; None without data."""
    left_out: str = ""
    """What of the given file no smaller one has, as a sentence."""


def shrink(path: Path, data: DataConfig | None, wish: Wish) -> Iterator[Shrunk]:
    """Measure an exported network, then write smaller ones, each made from the one before; yield each when it is there.

    Raises:
        UserError: a file, data or a wish that cannot be; no file of the stage that failed is left.
    """
    contents = read_contents(path)
    with naming(path):
        report = measure_file(path.read_bytes())
        _check_wish(wish, report.metrics.unique_values, has_data=data is not None)
        network = build_from(contents).to(wish.device)
        _check_fixed_set(contents, network, wish)
    names = contents.metadata.class_names
    images = None if data is None else TestImages(data, network, batch_size=wish.batch_size, class_names=names)
    _check_folder(wish.out, [place_of(path, wish.out, size) for size in wish.sizes])
    task = None if data is None or images is None else _task(network, data, images, contents, wish)
    accuracy = None if images is None else evaluate_mean(network, images)
    yield Shrunk(path, report, accuracy, NO_SIGMAS if contents.sigmas else "")
    latent = SharedWeights(task.parameter_sets, QatConfig(stages=wish.sizes)) if task and wish.epochs > 0 else None
    for size in wish.sizes:
        if task is not None and latent is not None:
            _train_(task, latent, size, _importance(task, wish), wish.epochs)
        else:
            merge_([dict(network.named_parameters())[name] for name in contents.fixed], size, _importance(task, wish))
        if task is not None:
            task.recalibrate()
        yield _written(network.eval(), place_of(path, wish.out, size), path, contents, images)


@torch.no_grad()
def merge_(parameters: Sequence[nn.Parameter], num_values: int, importance: FloatArray | None) -> None:
    """Merge the values of all parameters together into fewer; the weights of one value stay together.

    Args:
        parameters: whose values are merged.
        num_values: how many there are afterwards.
        importance: positive, of each weight in the order of the parameters, `(num_weights,)`; None weighs all alike.
    """
    weights = finite_array("the weights", torch.cat([parameter.flatten() for parameter in parameters]))
    merged = torch.from_numpy(nearest_values(weights, kmeans_values(weights, num_values, importance)))
    for parameter, values in zip(parameters, torch.split(merged, [each.numel() for each in parameters]), strict=True):
        parameter.copy_(values.view_as(parameter))


def place_of(path: Path, out: Path, num_values: int) -> Path:
    """Where the network of so many values goes: `NAME-16-values.pwfn.safetensors`."""
    name = path.name.removesuffix(".safetensors").removesuffix(".pwfn")
    return out / f"{name}-{num_values}-values.pwfn.safetensors"


def _train_(
    task: Task, weights: SharedWeights, num_values: int, importance: FloatArray | None, num_epochs: int
) -> None:
    """Choose values for the latent weights and train both straight through.

    The latent weights begin as the weights of the given file, and go on from stage to stage.
    """
    num_steps = task.num_steps(TRAINING)
    weights.start_stage_(num_values, importance)
    descent = weights.descent(TRAINING, num_steps=num_epochs * num_steps, replicas=task.replicas)
    learner = StraightThroughLearner(task.network, weights, descent)
    labels = [f"{num_values} values epoch {epoch + 1}" for epoch in range(num_epochs)]
    list(task.train_epochs(learner, labels, num_steps=num_steps, batch_size=TRAINING.batch_size))
    weights.assign_()
    finite_array("the weights", weights.shown)


def _importance(task: Task | None, wish: Wish) -> FloatArray | None:
    """How much each weight matters to the network as it stands, `(num_weights,)`; None weighs all alike."""
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
    """Write the network as it stands, load it again, and measure what was loaded."""
    state: dict[str, Tensor] = stored_state(network)
    fixed = {name: state[name] for name in contents.fixed}
    rest = {name: tensor for name, tensor in state.items() if name not in fixed}
    provenance = {**contents.metadata.provenance, "shrunk_from": source.name}
    metrics: dict[str, Scalar] = {} if images is None else {"test_top1": evaluate_mean(network, images).top1}
    metadata = dataclasses.replace(contents.metadata, metrics=metrics, provenance=provenance)
    content, _ = encode_no_larger_than_zip(fixed, rest, metadata)
    checked = write_checked(place, content, network, fixed=fixed, exact=True, images=images, recorded={})
    return Shrunk(place, checked.report, checked.after)


def _check_wish(wish: Wish, num_values: int, *, has_data: bool) -> None:
    """Refuse what cannot be done, before anything is written."""
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
    if not has_data and wish.epochs > 0:
        raise UserError(f"--epochs {wish.epochs} needs training images: give --data, or --epochs 0")


def _check_fixed_set(contents: Contents, network: nn.Module, wish: Wish) -> None:
    """Fisher information and training know the usual fixed set, in its order."""
    usual = list(split_parameters(network).fixable)
    if list(contents.fixed) != usual and (wish.weighting == "fisher" or wish.epochs > 0):
        other = sorted(set(usual).symmetric_difference(contents.fixed)) or ["the order"]
        raise UserError(
            f"its values are shared by other tensors than training would use ({other[0]}, {len(other)} in all), "
            "so it can only be merged: use --weighting plain and --epochs 0"
        )


def _check_folder(out: Path, places: Sequence[Path]) -> None:
    """Make the folder, and see that files can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be written: {error.strerror or error}") from error
    for place in places:
        if place.exists():
            raise UserError(f"{place} is there already; give another --out, or remove it")
