"""The compact convolutional transformer (CCT) for small images, of Hassani et al. 2021 (arXiv 2104.05704)."""

from __future__ import annotations

import torch
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class CompactTransformer(nn.Module):
    """CCT-`depth`/3x2: tokens from two convolutions, pre-norm transformer blocks, sequence pooling.

    The stem (the paper's convolutional tokeniser, section 3.3) is twice a 3x3 convolution without bias, ReLU and a 3x3
    max-pooling of stride 2, so that a 32x32 image gives 64 tokens. Sequence pooling (section 3.2) weights the tokens
    with a softmax over one score for each, in place of a class token. The only norm layers are LayerNorms.

    Args:
        depth: number of transformer blocks.
        width: length of a token; a multiple of `num_heads`.
        num_heads: heads of each attention.
        mlp_ratio: width of the hidden layer of a block, as a share of `width`.
        img_size: height and width of the images, or one number for both; the positional embedding belongs to it.
        num_classes: number of class scores.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout after the projection of the attention and in the MLP.
        attn_drop_rate: dropout of the attention weights.
        drop_path_rate: share of the images for which the last block is left out (stochastic depth); it grows evenly
            from zero at the first block.
    """

    def __init__(
        self,
        depth: int,
        img_size: int | tuple[int, int],
        width: int = 128,
        num_heads: int = 2,
        mlp_ratio: float = 1.0,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        height, width_of_image = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.stem = nn.Sequential(*_convolution(in_chans, STEM_CHANNELS), *_convolution(STEM_CHANNELS, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, _pooled(height) * _pooled(width_of_image), width))
        self.blocks = nn.Sequential(
            *(
                Block(
                    width,
                    num_heads,
                    mlp_ratio,
                    proj_drop=proj_drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=drop_path_rate * index / max(1, depth - 1),
                )
                for index in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(width, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights as in the authors' code: He et al. 2015 for convolutions, normal numbers for the rest."""
        trunc_normal_(self.pos_embed, std=0.2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """Name the parameters, beside biases and norm layers, that timm's optimisers do not decay."""
        return {"pos_embed"}

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, in_chans, h, w)` to class scores `(n, num_classes)`."""
        tokens = self.stem(images).flatten(2).transpose(1, 2) + self.pos_embed
        tokens = self.norm(self.blocks(tokens))
        weights = self.pool(tokens).softmax(dim=1)
        pooled = (weights * tokens).sum(dim=1)
        scores: Tensor = self.head(self.dropout(pooled))
        return scores


STEM_CHANNELS = 64
"""Channels between the two convolutions of the stem."""


def _convolution(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    # The paper has ReLU before the pooling. The largest value of a window is the same either way, and so is its
    # gradient; after the pooling there is a quarter as much to do.
    return convolution, nn.MaxPool2d(3, stride=2, padding=1), nn.ReLU()


def _pooled(side: int) -> int:
    """Return the side of the stem's output: each of its two max-poolings halves the side, rounded up."""
    for _ in range(2):
        side = (side + 1) // 2
    return side
