"""K-means on a real pretrained network: the ResNet-20 for CIFAR-10."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from pwfn.config import DataConfig, KmeansConfig, ModelConfig, TrialConfig
from pwfn.data import open_source
from pwfn.methods.kmeans.method import Kmeans
from pwfn.models import build_network, preprocessing_of
from pwfn.replicas import Replicas
from pwfn.task import Task
from pwfn.training import evaluate

CPU = torch.device("cpu")
BATCH = 250


def resnet20(folder: Path, *, test_images: int | None = None, **method) -> Task:
    data = DataConfig(
        name="parquet",
        root=str(folder / "cifar10"),
        augmentation="none",
        train_images=600,
        validation_images=10,
        test_images=test_images,
    )
    model = ModelConfig(name="cifar_resnet20", checkpoint=str(folder / "resnet_cifar10" / "resnet20.safetensors"))
    config = TrialConfig(model=model, data=data, method=KmeansConfig(**method))
    source = open_source(data, seed=0)
    network = build_network(model, num_classes=source.num_classes, in_channels=source.in_channels)
    return Task(network, source.prepare(preprocessing_of(network), CPU), config, CPU, Replicas())


def top1(task: Task, num_images: int) -> float:
    """On the first test images of the file."""
    batches = islice(task.batches("test", batch_size=BATCH), num_images // BATCH)
    return evaluate(task.network, batches, precision="float32", replicas=task.replicas).top1


def quantized_top1(folder: Path, num_images: int, *, test_images: int | None = None, **method) -> float:
    task = resnet20(folder, test_images=test_images, **method)
    Kmeans(task).fix(0)
    return top1(task, num_images)


def test_64_values_keep_the_accuracy_and_8_do_not(shared_data):
    task = resnet20(shared_data, test_images=BATCH)
    of_float = top1(task, BATCH)
    assert of_float > 0.85
    assert quantized_top1(shared_data, BATCH, test_images=BATCH, num_values=64) > of_float - 0.03
    assert quantized_top1(shared_data, BATCH, test_images=BATCH, num_values=8) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("num_values", "known"), [(64, 0.918), (32, 0.914)])
def test_accuracy_is_as_known(shared_data, num_values, known):
    """Figures of an independent run, on the same images."""
    assert quantized_top1(shared_data, 2000, num_values=num_values) == pytest.approx(known, abs=0.01)


@pytest.mark.slow
def test_fisher_weighting_helps_where_values_are_few(shared_data):
    plain, fisher = (
        quantized_top1(shared_data, 2000, num_values=8, weighting=weighting) for weighting in ("plain", "fisher")
    )
    assert plain < 0.35
    assert fisher > 0.45
