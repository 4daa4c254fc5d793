"""Small real tasks for the tests of methods: the digits, and networks with every kind of layer."""

from __future__ import annotations

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import torch
from timm.layers import CondConv2d
from torch import nn

from pwfn.config import DataConfig, EvaluationConfig, TrainingConfig, TrialConfig
from pwfn.data import Preprocessing, open_source
from pwfn.replicas import Replicas
from pwfn.task import Task

DIGITS = DataConfig(name="digits", train_images=256, validation_images=100, test_images=100, augmentation="none")
SHORT = TrainingConfig(lr=0.01, batch_size=64, start_fraction=1.0, rest_epochs=1)


class Attention(nn.Module):
    """One attention block over the columns of an image, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(8, 16) * 0.02)
        self.embed, self.qkv, self.project = nn.Linear(8, 16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images.squeeze(1)) + self.position
        query, key, value = self.qkv(self.norm(tokens)).view(-1, 8, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.project(mixed.transpose(1, 2).reshape(-1, 8, 16))
        return self.head(tokens.mean(dim=1))


def convolutional() -> nn.Module:
    """Plain, grouped, dilated, strided and depthwise convolutions, with BatchNorm and an odd padding mode."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=2, dilation=2, padding=2, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    )


def without_batchnorm() -> nn.Module:
    """A plain multilayer perceptron."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Unusual(nn.Module):
    """Layers that few networks have: transposed, recurrent, a mixture of experts, biases of attention, a raw weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.experts = (
            nn.ConvTranspose2d(1, 4, 2, stride=2, groups=1),
            CondConv2d(4, 8, 3, stride=2, num_experts=2),
        )
        self.router, self.recurrent = nn.Linear(4, 2), nn.LSTM(8, 8, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.attention_biases, self.w_g = nn.Parameter(torch.randn(2, 16)), nn.Parameter(torch.randn(16, 1))
        self.head = nn.Linear(16, 10)
        nn.init.normal_(self.experts.weight, std=0.2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.up(images).relu()
        routing = self.router(features.mean(dim=(2, 3))).sigmoid()
        tokens, _ = self.recurrent(self.experts(features, routing).relu().mean(dim=3).transpose(1, 2))
        biases = self.attention_biases.repeat(len(images), 1)[:, None, : tokens.shape[1]]
        mask = biases.expand(-1, tokens.shape[1], -1)
        tokens = tokens + self.attention(tokens, tokens, tokens, attn_mask=mask, need_weights=False)[0]
        return self.head((tokens * (tokens @ self.w_g).softmax(dim=1)).sum(dim=1))


NETWORKS = {
    "convolutional": convolutional,
    "without_batchnorm": without_batchnorm,
    "attention": Attention,
    "unusual": Unusual,
}


def make_task(network: str = "convolutional", *, training: TrainingConfig = SHORT, seed: int = 0, **config) -> Task:
    """Build a task on a few hundred digits; `config` goes to the trial's configuration."""
    torch.manual_seed(7)
    module = NETWORKS[network]()
    evaluation = EvaluationConfig(recalibration_images=128)
    trial = TrialConfig(data=DIGITS, training=training, evaluation=evaluation, seed=seed, **config)
    source = open_source(DIGITS, seed=0)
    data = source.prepare(Preprocessing(mean=(0.3,), std=(0.37,), image_size=8), torch.device("cpu"))
    return Task(module, data, trial, torch.device("cpu"), Replicas())
