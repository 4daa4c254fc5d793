"""MSQ: every weight and bias at the nearest level of its layer's alphabet."""

import pytest
import torch
from method_cases import make_task

from pwfn.config import MsqConfig
from pwfn.errors import UserError
from pwfn.methods.gpfq.msq import Msq
from pwfn.parameters import split_parameters


def test_every_parameter_is_rounded_to_the_levels_of_its_layer():
    task = make_task(method=MsqConfig(bits=2))
    with torch.no_grad():
        task.network[3].bias.mul_(4)  # beyond its weights
        task.network[9].bias.mul_(0.5)  # within them
    before = {name: p.detach().clone() for name, p in split_parameters(task.network).fixable.items()}
    fixing = Msq(task).fix(0)
    for name, parameter in split_parameters(task.network).fixable.items():
        weight = before[name.rpartition(".")[0] + ".weight"]
        radius = before[name].abs().max() if name == "3.bias" else weight.flatten(1).abs().amax(dim=1).mean()
        levels = (radius / 2 * torch.arange(-2.0, 3.0)).to(torch.float64)
        distances = (before[name].double()[..., None] - levels).abs()
        assert torch.allclose(parameter.double(), levels[distances.argmin(dim=-1)], atol=1e-6)
    assert fixing.untreated_layers == ()
    assert fixing.num_fixed == split_parameters(task.network).num_fixable


def test_a_shared_alphabet_gives_the_network_one_set_of_levels():
    counts = []
    for shared in (False, True):
        task = make_task(method=MsqConfig(bits=3, shared_alphabet=shared))
        counts.append(len(Msq(task).fix(0).codebook.values))
    assert counts[1] <= 2 * 2**3 + 1 < counts[0] <= 6 * 2**3 + 1  # four weights, two biases, zero in common


def test_a_radius_of_zero_is_refused_unless_the_layer_is_zero():
    task = make_task("without_batchnorm", method=MsqConfig(bits=1, radius="median"))
    with torch.no_grad():
        task.network[3].weight.zero_()
        Msq(task).fix(0)
        task.network[3].weight[:, :3] = 1
    with pytest.raises(UserError, match=r"method.radius=median: too many weights of layer 3 are zero, .* use method"):
        Msq(task).fix(0)
