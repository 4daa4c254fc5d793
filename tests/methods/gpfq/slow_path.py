"""GPFQ as the paper writes it: one neuron after the other, one feature after the other, in float64."""

from __future__ import annotations

import numpy as np


def slow_path(weights, float_inputs, inputs, levels):
    """The recursion of Lybrand & Saab, section 2.

    `weights` is (neurons, features); rows of `float_inputs` and `inputs`, (features, samples), are X_t and X~_t;
    `levels` are float64 and ascending. Of two equally near levels the one with the even position counted from the
    middle is taken.
    """
    quantized = np.zeros_like(weights)
    for neuron, row in enumerate(weights):
        error = np.zeros(inputs.shape[1])
        for t, weight in enumerate(row):
            norm = float(inputs[t] @ inputs[t])
            argument = float(inputs[t] @ (error + weight * float_inputs[t])) / norm if norm > 0 else 0.0
            level = nearest_level(argument, levels)
            quantized[neuron, t] = level
            error = error + weight * float_inputs[t] - level * inputs[t]
    return quantized


def nearest_level(argument, levels):
    distances = np.abs(levels - argument)
    nearest = np.flatnonzero(distances == distances.min())
    middle = len(levels) // 2
    return levels[min(nearest, key=lambda position: abs(position - middle) % 2)]
