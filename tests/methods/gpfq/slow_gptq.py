"""GPTQ towards the float network's outputs by its definition: each step solves its least-squares problem anew."""

from __future__ import annotations

import numpy as np
from slow_path import nearest_level


def slow_gptq(weights, float_inputs, inputs, levels, *, damping_share, sweeps):
    """Levels `(neurons, features)` of weights of that shape; rows of the inputs are features, columns samples."""
    num_features = weights.shape[1]
    damping = damping_share * (inputs**2).sum(axis=1).mean() or 1.0
    # The damping is as many further samples: each has one feature alone, and the same in both networks.
    further = np.sqrt(damping) * np.eye(num_features)
    float_inputs, inputs = np.hstack([float_inputs, further]), np.hstack([inputs, further])
    quantized = np.zeros_like(weights)
    for neuron, row in enumerate(weights):
        wanted = row @ float_inputs
        chosen = np.zeros(num_features)
        for t in range(num_features):
            left = wanted - chosen[:t] @ inputs[:t]
            free, *_ = np.linalg.lstsq(inputs[t:].T, left, rcond=None)
            chosen[t] = nearest_level(free[0], levels)
        for _ in range(sweeps):
            for t in range(num_features):
                others = np.arange(num_features) != t
                left = wanted - chosen[others] @ inputs[others]
                chosen[t] = nearest_level(left @ inputs[t] / (inputs[t] @ inputs[t]), levels)
        quantized[neuron] = chosen
    return quantized


def error(levels, weights, float_inputs, inputs):
    """||w X - q X~||^2 of each neuron."""
    return ((weights @ float_inputs - levels @ inputs) ** 2).sum(axis=-1)
