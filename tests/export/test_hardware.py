import heapq

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import nn

from pwfn.export.hardware import huffman_lengths, measure_hardware


def joined_weight(counts):
    """Cost of a Huffman code by its definition: the sum of all joined weights."""
    heap = list(counts)
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=200))
def test_huffman_lengths_are_optimal_and_decodable(counts):
    counts = np.array(counts)
    lengths = huffman_lengths(counts)
    assert (lengths * counts).sum() == joined_weight(counts.tolist())
    assert sum(2.0 ** -lengths.astype(float)) == pytest.approx(1.0)
    bits = (lengths * counts).sum() / counts.sum()
    assert entropy(counts, base=2) - 1e-9 <= bits < entropy(counts, base=2) + 1


def test_powers_of_two_reach_the_entropy():
    assert huffman_lengths(np.array([1, 1, 2, 4, 8])).tolist() == [4, 4, 3, 2, 1]


def test_a_single_value_takes_one_bit():
    assert huffman_lengths(np.array([7])).tolist() == [1]


def make_network():
    """3x3 convolution used at 4 positions, and a linear layer used once."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1)).eval()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[0] = 0.5  # 9 weights of order 1
        network[0].weight[1, 0, 0] = 0.75  # 3 weights of order 2, 6 zeros
        network[2].weight.fill_(0.875)  # 8 weights of order 3
        for layer in (network[0], network[2]):
            layer.bias.fill_(0.5)
    return network


def test_multiplications_are_counted_by_order_and_use():
    network = make_network()
    cost = measure_hardware(network, torch.zeros(1, 1, 4, 4), list(network.parameters()))
    assert cost.multiplications_by_order == {0: 6 * 4, 1: 9 * 4, 2: 3 * 4, 3: 8}
    assert cost.multiplications == 18 * 4 + 8
    assert cost.shifts == 9 * 4 + 2 * 3 * 4 + 3 * 8
    assert cost.adds == 3 * 4 + 2 * 8


def test_reads_are_weighted_by_use():
    network = make_network()
    cost = measure_hardware(network, torch.zeros(1, 1, 4, 4), list(network.parameters()))
    # Counts with biases: 0.5 twelve times (1 bit), 0.875 eight (2), 0 six and 0.75 three (3).
    assert cost.huffman_bits == pytest.approx((12 + 2 * 8 + 3 * 9) / 29)
    assert cost.huffman_bits_read == pytest.approx((36 + 2 * 8 + 3 * 36) / 80)


def test_tokens_count_as_uses():
    layer = nn.Linear(5, 3, bias=False)
    cost = measure_hardware(nn.Sequential(layer), torch.zeros(1, 7, 5), [layer.weight])
    assert cost.multiplications == 7 * 15


def test_each_weight_of_a_transposed_convolution_meets_each_input_of_its_channel():
    layer = nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False)
    cost = measure_hardware(nn.Sequential(layer), torch.zeros(1, 2, 5, 5), [layer.weight])
    assert cost.multiplications == 25 * 2 * 3 * 4


def test_each_weight_of_a_recurrent_layer_is_used_once_a_step():
    layer = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    cost = measure_hardware(nn.Sequential(layer), torch.zeros(1, 6, 4), list(layer.parameters()))
    assert cost.multiplications == 6 * 2 * (12 * 4 + 12 * 3)


def test_the_hooks_are_gone_afterwards():
    network = make_network()
    measure_hardware(network, torch.zeros(1, 1, 4, 4), list(network.parameters()))
    assert not any(module._forward_hooks for module in network.modules())
