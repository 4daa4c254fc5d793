"""What a network with shared values costs in hardware: multiplications as shifts and adds, and weight reads.

A value of order R is a sum of R powers of two, so multiplying by it takes R shifts and R - 1 adds; by zero, nothing.
Reads follow the argument of WFN (ECCV 2022): moving weights costs more energy than computing with them, and few
values of low entropy make the moved words short. They are counted in bits of a Huffman code over the whole network.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pwfn.codebook import Codebook, IntArray, value_orders
from pwfn.parameters import PRODUCT_LAYERS, TRANSPOSED_LAYERS

FLOAT_BITS = 32


@dataclass(frozen=True)
class HardwareCost:
    """Costs of one image, and of reading the weights; see the module."""

    multiplications_by_order: dict[int, int]
    """Multiplications by a weight of each order, per image, ascending; order 0 is the weight zero."""
    huffman_bits: float
    """Bits per weight of the fixed set."""
    huffman_bits_read: float
    """Bits per multiplication, if each reads its weight anew."""

    @property
    def multiplications(self) -> int:
        """Per image, those by zero included."""
        return sum(self.multiplications_by_order.values())

    @property
    def shifts(self) -> int:
        """Per image."""
        return sum(order * count for order, count in self.multiplications_by_order.items())

    @property
    def adds(self) -> int:
        """Per image, within products; summing the products comes on top, as with any multiplier."""
        return sum((order - 1) * count for order, count in self.multiplications_by_order.items() if order)


def measure_hardware(network: nn.Module, image: Tensor, fixed: Iterable[Tensor]) -> HardwareCost:
    """Count what one image costs a network's convolutions, transposed ones too, linear and recurrent layers.

    Layers whose weight is used without calling them count as unused, as do mixtures of experts and raw parameters.

    Args:
        network: in evaluation mode.
        image: any input, float32 `(1, channels, height, width)`.
        fixed: the tensors of the fixed set.
    """
    uses = _uses_of_each_weight(network, image)
    by_order: defaultdict[int, int] = defaultdict(int)
    read: defaultdict[float, int] = defaultdict(int)
    for weight, count in uses:
        codebook = Codebook.of(weight)
        for value, order, number in zip(
            codebook.values.tolist(), value_orders(codebook.values).tolist(), codebook.counts.tolist(), strict=True
        ):
            by_order[order] += number * count
            read[value] += number * count
    whole = Codebook.of(torch.cat([tensor.reshape(-1) for tensor in fixed]))
    lengths = huffman_lengths(whole.counts)
    length_of = dict(zip(whole.values.tolist(), lengths.tolist(), strict=True))
    num_reads = sum(read.values())
    return HardwareCost(
        multiplications_by_order=dict(sorted(by_order.items())),
        huffman_bits=float((lengths * whole.counts).sum() / whole.counts.sum()),
        huffman_bits_read=sum(length_of[value] * count for value, count in read.items()) / max(num_reads, 1),
    )


def huffman_lengths(counts: IntArray) -> IntArray:
    """Code length in bits of each symbol, int64 `(num_symbols,)`, in a Huffman code for positive counts.

    Equal weights are joined in the order of their making; a single symbol gets one bit.
    """
    if len(counts) == 1:
        return np.ones(1, dtype=np.int64)
    parents = np.zeros(2 * len(counts) - 1, dtype=np.int64)
    heap = [(count, symbol) for symbol, count in enumerate(counts.tolist())]
    heapq.heapify(heap)
    for node in range(len(counts), len(parents)):
        (one, left), (other, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[[left, right]] = node
        heapq.heappush(heap, (one + other, node))
    depths = np.zeros_like(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(counts)]


def _uses_of_each_weight(network: nn.Module, image: Tensor) -> list[tuple[Tensor, int]]:
    """Weight tensors, and how often one image uses each of their elements."""
    uses: list[tuple[Tensor, int]] = []

    def count(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        if isinstance(module, nn.RNNBase):  # each matrix is used once for each step
            steps = inputs[0].numel() // module.input_size
            uses.extend((p.detach(), steps) for name, p in module.named_parameters() if name.startswith("weight"))
        else:  # by each output channel's numbers, or by each input channel's where the layer is transposed
            numbers = inputs[0] if isinstance(module, TRANSPOSED_LAYERS) else output
            uses.append((module.weight.detach(), numbers.numel() // module.weight.shape[0]))

    counted = (*PRODUCT_LAYERS, *TRANSPOSED_LAYERS, nn.RNNBase)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted)]
    try:
        with torch.inference_mode():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return uses
