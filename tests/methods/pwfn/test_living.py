"""Fixed weights that go on living: what they show, how far they may go."""

import pytest
import torch
from method_cases import SHORT, make_task
from pydantic import ValidationError

from pwfn.config import PwfnConfig
from pwfn.methods import run_rounds
from pwfn.methods.pwfn.living import LivingWeights
from pwfn.methods.pwfn.method import Pwfn

KMEANS = {"codebook": "kmeans", "num_values": 6, "sigma_join": "allow_retraining", "noise": False}


def run(training=SHORT, **config):
    config = {"fractions": (0.4, 1.0), "b": 5, "fixed_weights": "live", **config}
    method = Pwfn(make_task("without_batchnorm", training=training, method=PwfnConfig(**config)))
    return method, list(run_rounds(method))


def test_a_fixed_weight_shows_the_value_nearest_to_its_latent_weight_and_a_free_one_itself():
    mu = torch.tensor([-1.0, -0.1, 0.2, 0.9, 5.0])
    fixed = torch.tensor([True, True, True, True, False])
    living = LivingWeights(mu)
    living.fix_(mu, torch.full_like(mu, 0.1), torch.tensor([-0.5, 0.0, 1.0]).numpy(), radius=2.0)
    assert living.shown(mu, fixed).tolist() == pytest.approx([-0.5, 0.0, 0.0, 1.0, 5.0])
    moved = mu + torch.tensor([0.5, -0.5, 0.1, 0.0, 3.0])
    living.limit_(moved, fixed)
    assert moved.tolist() == pytest.approx([-0.8, -0.3, 0.3, 0.9, 8.0])  # two sigmas, and the free one at will
    assert living.shown(moved, fixed).tolist() == pytest.approx([-0.5, -0.5, 0.0, 1.0, 8.0])


def test_latent_weights_train_within_the_radius_in_sigmas():
    method, _ = run(start_sigma=0.5, end_sigma=0.5, **KMEANS)
    task = make_task("without_batchnorm", method=method.config, training=SHORT.model_copy(update={"lr": 10.0}))
    method = Pwfn(task)
    method.train(0)
    sigma, anchor = method.posterior.sigma.clone(), method.posterior.mu.clone()
    method.fix(0)
    fixed = method.posterior.fixed.clone()
    method.train(1)
    moved = (method.posterior.mu - anchor).abs()[fixed]
    assert (moved <= 0.5 * sigma[fixed] * 1.001 + 1e-7).all()
    assert (moved > 0).float().mean() > 0.5


def test_weights_change_their_values_as_far_as_sigma_allows():
    """With a wide radius fixed weights change sides; with none they stay, as the paper's do."""
    training = SHORT.model_copy(update={"lr": 0.1, "settle_epochs": 2})
    changed = {}
    for radius in (1e-9, 1e9):
        config = {"fractions": (1.0,), "start_sigma": radius, "end_sigma": radius, **KMEANS}
        method = Pwfn(make_task("without_batchnorm", training=training,
                                method=PwfnConfig(fixed_weights="live", **config)))  # fmt: skip
        method.train(0)
        fixing = method.fix(0)
        places = method.posterior.living.places.clone()
        settled = method.settle(fixing)
        changed[radius] = float((method.posterior.living.places != places).float().mean())
        assert len(settled.codebook.values) == 6
    assert changed[1e9] > 0.01
    assert changed[1e-9] < changed[1e9] / 4  # the values move too


def test_the_lattices_values_stay_on_it():
    _, records = run(training=SHORT.model_copy(update={"settle_epochs": 1}), end_sigma=8.0)
    values = records[-1].fixing.codebook.values
    assert (values * 2**5 == (values * 2**5).round()).all()


def test_weights_that_keep_their_values_cannot_live():
    with pytest.raises(ValidationError, match="fixed_weights=live lets fixed weights change their value, and"):
        PwfnConfig(fixed_weights="live", recluster="free")
