"""Our own small architectures: CIFAR's ResNets and compact transformers, two networks for digits, one for MNIST.

In torch alone: to load an exported one takes neither timm nor torchvision (`registered.py` makes them known to timm).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad, relu

_CIFAR = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1",
    "classifier": "linear",
}
_DIGITS = {**_CIFAR, "input_size": (1, 8, 8), "mean": (0.305,), "std": (0.376,), "interpolation": "bilinear"}
_MNIST = {**_DIGITS, "input_size": (1, 28, 28), "mean": (0.1307,), "std": (0.3081,)}
_MLP = {"fixed_input_size": True, "first_conv": None}
_CCT = {"fixed_input_size": True, "first_conv": "stem.0", "classifier": "head"}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a parameter-free shortcut (He et al. 2016, section 4.2, option A).

    Where the block changes resolution, the shortcut takes every second pixel and pads the new channels with zeros,
    half of them on each side.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, channels, h / stride, w / stride)`."""
        residual = self.bn2(self.conv2(relu(self.bn1(self.conv1(images)))))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        return relu(residual + pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before)))


class CifarResNet(nn.Module):
    """The ResNet of 6n + 2 layers for 32x32 images (He et al. 2016, section 4.2); three stages of n blocks."""

    def __init__(self, blocks: int, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, in_chans, h, w)` to class scores `(n, num_classes)`."""
        features = relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        scores: Tensor = self.linear(features.mean(dim=(2, 3)))  # no cast: torch.jit.script knows none
        return scores


class DigitsCnn(nn.Module):
    """Three 3x3 convolutions with BatchNorm and one linear layer, for images of about 8x8 pixels."""

    def __init__(self, num_classes: int = 10, in_chans: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths = (in_chans, 24, 48, 48)
        strides = (1, 2, 1)
        self.features = nn.Sequential(
            *(_conv_bn_relu(a, b, stride) for (a, b), stride in zip(pairwise(widths), strides, strict=True))
        )
        self.linear = nn.Linear(widths[-1], num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, in_chans, h, w)` to class scores `(n, num_classes)`."""
        scores: Tensor = self.linear(self.features(images).mean(dim=(2, 3)))  # no cast: torch.jit.script knows none
        return scores


class Mlp(nn.Module):
    """Linear layers with ReLU between, no norm layer; takes one image size, since it reads all pixels at once."""

    def __init__(
        self, hidden: tuple[int, ...], img_size: int | tuple[int, int], num_classes: int = 10, in_chans: int = 1
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sides = (img_size, img_size) if isinstance(img_size, int) else img_size
        widths = (in_chans * prod(sides), *hidden)
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(widths[-1], num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, in_chans, h, w)` to class scores `(n, num_classes)`."""
        scores: Tensor = self.linear(self.layers(images.flatten(1)))  # no cast: torch.jit.script knows none
        return scores


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def _conv_bn_relu(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels), relu=nn.ReLU()))


def _initialise(network: nn.Module) -> None:
    """Draw weights as He et al. 2015 for ReLU, set biases to zero; BatchNorm keeps torch's ones and zeros."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _compact_transformer(depth: int, **arguments: Any) -> nn.Module:
    from pwfn.models.compact_transformer import CompactTransformer  # imports timm

    return CompactTransformer(depth, **arguments)


@dataclass(frozen=True)
class Architecture:
    """One of ours."""

    constructor: Callable[..., nn.Module]
    """Takes `num_classes`, `in_chans`, and `img_size` where the record says that it is fixed."""
    record: Mapping[str, Any]
    """What timm keeps of a network: how images are prepared, and what its first and last layers are called."""
    meaning: str


ARCHITECTURES: Mapping[str, Architecture] = {
    **{
        f"cifar_resnet{depth}": Architecture(
            partial(CifarResNet, (depth - 2) // 6), _CIFAR, f"ResNet-{depth} for CIFAR: {size} M parameters."
        )
        for depth, size in ((20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85))
    },
    **{
        f"cifar_cct{depth}": Architecture(
            partial(_compact_transformer, depth),
            {**_CIFAR, **_CCT},
            f"CCT-{depth}/3x2 for CIFAR, a transformer of {depth} blocks: {size} M parameters.",
        )
        for depth, size in ((2, 0.28), (4, 0.48))
    },
    "digits_cnn": Architecture(
        DigitsCnn,
        {**_DIGITS, "first_conv": "features.0.conv"},
        "Small convolutional network with BatchNorm for 8x8 grey digits: 32 k parameters.",
    ),
    "digits_mlp": Architecture(
        partial(Mlp, (128, 64)), {**_DIGITS, **_MLP}, "64-128-64-10 perceptron for 8x8 grey digits: 17 k parameters."
    ),
    "mlp_500_300": Architecture(
        partial(Mlp, (500, 300)), {**_MNIST, **_MLP}, "784-500-300-10 perceptron for MNIST: 0.55 M parameters."
    ),
}
