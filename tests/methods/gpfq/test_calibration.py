"""What is gathered over batches equals what one big batch of the definition gives."""

import re

import pytest
import torch
from torch import nn

from pwfn.errors import UserError
from pwfn.methods.gpfq import layers
from pwfn.methods.gpfq.calibration import Calibration
from pwfn.methods.gpfq.layers import call_of, fixable_layers


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, stride=2))


def inputs_of(module, layer, images):
    samples = torch.cat(list(call_of(module, layer, images).samples()), dim=2).double()
    return torch.cat([samples, torch.ones_like(samples[:, :1])], dim=1)


@pytest.fixture
def calibrated():
    """A calibration in two uneven batches whose first layer is quantised; the second layer, X and X~."""
    module, images = network(), torch.randn(30, 1, 9, 9)
    calibration = Calibration(module, [images[:20], images[20:]])
    module[0].weight.data.mul_(4).round_().div_(4)
    layer = fixable_layers(module)[1]
    return calibration, layer, inputs_of(calibration.original, layer, images), inputs_of(module, layer, images)


@pytest.mark.parametrize("chunk", [500, 2**23])
def test_grams_are_those_of_all_samples_with_the_constant_last(calibrated, chunk, monkeypatch):
    monkeypatch.setattr(layers, "CHUNK_ELEMENTS", chunk)
    calibration, layer, float_inputs, inputs = calibrated
    grams = calibration.grams(layer)
    assert not torch.allclose(float_inputs, inputs)
    assert grams.gram.shape == (2, 19, 19)
    assert grams.gram.dtype == torch.float64
    scale = inputs.square().sum(dim=2).max()  # float32 products: a relative error of about 1e-6
    assert torch.allclose(grams.cross, inputs @ float_inputs.mT, rtol=1e-5, atol=1e-6 * scale)
    assert torch.allclose(grams.gram, inputs @ inputs.mT, rtol=1e-5, atol=1e-6 * scale)
    assert (grams.gram[:, -1, -1] == inputs.shape[2]).all()


def test_all_samples_are_collected_where_they_are_few(calibrated):
    calibration, layer, float_inputs, inputs = calibrated
    samples = calibration.samples(layer, 10_000, torch.Generator().manual_seed(0))
    assert samples.inputs.shape == inputs.shape
    assert torch.allclose((samples.inputs @ samples.float_inputs.mT).double(), inputs @ float_inputs.mT, rtol=1e-4)


def test_of_many_samples_matching_ones_are_drawn(calibrated):
    calibration, layer, float_inputs, inputs = calibrated
    drawn = calibration.samples(layer, 50, torch.Generator().manual_seed(0))
    assert 50 <= drawn.inputs.shape[2] <= 52  # one more per piece at most
    for column in range(drawn.inputs.shape[2]):
        same = (inputs == drawn.inputs[:, :, [column]].double()).all(dim=1).all(dim=0)
        position = int(same.nonzero()[0])
        assert torch.equal(float_inputs[:, :, position], drawn.float_inputs[:, :, column].double())


def test_the_float_network_stays_and_both_evaluate():
    module = network().train()
    calibration = Calibration(module, [torch.randn(4, 1, 9, 9)])
    before = calibration.original[3].weight.clone()
    with torch.no_grad():
        module[3].weight.zero_()
    assert torch.equal(calibration.original[3].weight, before)
    calibration.grams(fixable_layers(module)[1])
    assert not module.training
    assert not calibration.original.training
    assert module[1].num_batches_tracked == 0


class Fickle(nn.Module):
    """Uses its second layer for bright images only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images):
        return self.b(images) if images.mean() > 0 else self.a(images)


def test_a_network_that_runs_other_layers_for_other_images_is_refused():
    module = Fickle()
    calibration = Calibration(module, [torch.ones(2, 4), -torch.ones(2, 4)])
    message = "gpfq: layer b ran for the first calibration images but not for others; only networks that"
    with pytest.raises(UserError, match=re.escape(message)):
        calibration.grams(fixable_layers(module)[1])
