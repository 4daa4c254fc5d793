"""The accuracy of an exported network on any data set, of its mean weights and of its posterior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pwfn import training
from pwfn.config import DataConfig
from pwfn.data import open_source
from pwfn.data.classes import other_names
from pwfn.errors import UserError
from pwfn.models import preprocessing_of
from pwfn.parameters import MIN_SIGMA
from pwfn.replicas import Replicas
from pwfn.seeds import generator
from pwfn.training import Accuracy, Batches, evaluate


class TestImages:
    """The test images of a data set as a network wants them; iterate as often as needed.

    Args:
        config: which data; its `image_size` gives way to the network's.
        network: of `pwfn.models.build_network` or `pwfn.load`, on the device to measure on.
        batch_size: images per forward pass.
        class_names: that the network was trained on, in the order of its scores; None compares only their number.
        seed: of the split where the configuration gives none; it chooses the images where only some are used.

    Raises:
        UserError: data that cannot be read, or of other classes or channels than the network's.
    """

    __test__ = False  # not a test for pytest

    def __init__(
        self,
        config: DataConfig,
        network: nn.Module,
        *,
        batch_size: int,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        preprocessing = preprocessing_of(network)
        side = min(preprocessing.shape[1:])  # given: a network measured by its own size is no surprise
        source = open_source(config.model_copy(update={"image_size": side}), seed=seed)
        if source.num_classes != network.num_classes:
            found = f"{config.name} has {source.num_classes} classes"
            raise UserError(f"data: {found}, but the network tells {network.num_classes} apart")
        difference = None if class_names is None else other_names(class_names, source.class_names)
        if difference is not None:
            ways = "data.class_order (--data-class-order) or data.class_map (--data-class-map)"
            raise UserError(f"data: the classes of the network and of the data differ: {difference}; see {ways}")
        self.device = next(network.parameters()).device
        self.batch_size = batch_size
        self.data = source.prepare(preprocessing, self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all test images in file order."""
        return self.data.batches("test", batch_size=self.batch_size)

    def __len__(self) -> int:
        """Count the images."""
        return self.data.num_test


def evaluate_mean(network: nn.Module, batches: Batches) -> Accuracy:
    """Measure a network as it stands, in float32."""
    return evaluate(network, batches, precision="float32", replicas=Replicas())


@torch.inference_mode()
def evaluate_ensemble(
    network: nn.Module, sigmas: Mapping[str, Tensor], batches: Batches, *, draws: int, seed: int = 0
) -> Accuracy:
    """Measure the mean prediction over draws from the posterior around a network's weights (PWFN, section 4).

    The network is left as it was.

    Args:
        network: whose weights are the posterior's means.
        sigmas: by name of the weight.
        batches: the images.
        draws: networks per image.
        seed: of the noise.
    """
    parameters = dict(network.named_parameters())
    means = {name: parameters[name].clone() for name in sigmas}
    device = next(network.parameters()).device
    floors = {name: sigma.to(device).clamp(min=MIN_SIGMA) for name, sigma in sigmas.items()}
    noise = generator(device, seed, "ensemble")

    def draw_() -> None:
        for name, mean in means.items():
            parameters[name].copy_(mean + floors[name] * torch.randn(mean.shape, generator=noise, device=device))

    accuracy = training.evaluate_ensemble(network, draw_, batches, draws=draws, replicas=Replicas())
    for name, mean in means.items():
        parameters[name].copy_(mean)
    return accuracy
