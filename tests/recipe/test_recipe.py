"""The float network's training in timm's words, against timm itself."""

import copy

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers, muon
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot

from pwfn.config import BaselineConfig, DataConfig, ModelConfig
from pwfn.data import open_source
from pwfn.data.contract import Preprocessing
from pwfn.errors import UserError
from pwfn.models import build_network, preprocessing_of
from pwfn.parameters import FlatParameters
from pwfn.recipe.average import AveragingLearner
from pwfn.recipe.descent import RANDOM, NamedDescent, check_recipe
from pwfn.recipe.loss import Teacher, make_criterion
from pwfn.recipe.mixing import Mixing
from pwfn.replicas import Replicas

CPU = torch.device("cpu")
RECIPE = {"opt": "adamw", "lr": 0.01, "weight_decay": 0.05, "epochs": 4, "warmup_epochs": 1, "clip_norm": 1.0}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3))


def descent_of(network, **fields) -> tuple[NamedDescent, FlatParameters]:
    config = BaselineConfig(**(RECIPE | fields))
    flat = FlatParameters(network.parameters())
    return NamedDescent(network, flat, config, steps_per_epoch=2, replicas=Replicas()), flat


def train(network, descent, flat, steps) -> None:
    for step in steps:
        images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        flat.forget_()
        cross_entropy(network(images), torch.tensor([0, 1, 2, 0])).backward()
        flat.collect_()
        torch.manual_seed(step)
        descent.step()


def test_adamw_with_groups_and_warm_up_is_that_of_timms_own_script():
    ours, theirs = small_network(), small_network()
    train(ours, *descent_of(ours), range(8))
    optimizer = create_optimizer_v2(theirs, "adamw", lr=0.01, weight_decay=0.05)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.05]
    schedule, _ = create_scheduler_v2(
        optimizer, num_epochs=4, warmup_epochs=1, warmup_lr=1e-5, step_on_epochs=False, updates_per_epoch=2
    )
    for step in range(8):
        images = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        cross_entropy(theirs(images), torch.tensor([0, 1, 2, 0])).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        schedule.step_update(step + 1)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_optimizer_of_timm_goes_on_to_the_last_bit(every):
    needs_packages = ("bnb", "fused")
    known = [name for name in list_optimizers() if not name.startswith(needs_packages)]
    known = [name for name in known if not get_optimizer_info(name).second_order and name not in RANDOM]
    assert len(known) > 50
    wrong = []
    for name in known if every else ["adamw", "lamb", "lookahead_adamw", "muon"]:
        whole, first, second = small_network(), small_network(), small_network()
        train(whole, *descent_of(whole, opt=name), range(8))
        before, flat = descent_of(first, opt=name)
        train(first, before, flat, range(5))
        state = before.state()
        after, flat = descent_of(second, opt=name)
        after.values.copy_(before.values)
        after.load_state(state)
        train(second, after, flat, range(5, 8))
        if not all(map(torch.equal, whole.parameters(), second.parameters())):
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"opt": "adamv"}, "baseline.opt: timm.optim has no 'adamv'; did you mean adam"),
        ({"opt": "adahessian"}, "baseline.opt=adahessian needs second derivatives"),
        ({"opt": "kron"}, "baseline.opt=kron draws random numbers"),
        ({"opt_kwargs": {"beta": 1}}, r"baseline.opt: adamw with opt_kwargs=.*beta.* cannot be made"),
        ({"opt_kwargs": {"betas": [0.9]}}, r"baseline.opt: adamw with opt_kwargs=.* cannot be made: list index"),
        ({"opt": "adafactor", "opt_kwargs": {"eps": "x"}}, r"baseline.opt: adafactor with .* cannot take a step"),
        ({"sched": "wsd", "decay_epochs": 9.0}, "baseline.sched=wsd: .*decay"),
        ({"aa": "rand-q9"}, "baseline.aa: timm has no automatic augmentation 'rand-q9'"),
        ({"aa": "rand-m9-mst"}, "baseline.aa: .* 'rand-m9-mst' .'mst' has no number.; use a notation such as"),
        ({"aa": "random"}, "baseline.aa: timm has no automatic augmentation 'random'"),
    ],
)
def test_what_timm_does_not_know_is_refused_in_one_line(fields, message):
    config = BaselineConfig(**(RECIPE | fields))
    with pytest.raises(UserError, match=message) as error:
        check_recipe(config, small_network(), Preprocessing((0.5,), (0.5,), 8), num_images=64)
    assert "\n" not in str(error.value)


def test_mixing_depends_on_seed_and_step_alone_and_gives_shares_of_classes():
    config = BaselineConfig(mixup=0.8, cutmix=1.0, smoothing=0.1, reprob=0.5, mixup_mode="elem")
    mixing = Mixing(config, num_classes=3)
    batches = [(torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])) for _ in range(3)]

    def mixed(first_step, seed=7):
        return list(mixing(copy.deepcopy(batches[first_step:]), seed, first_step))

    state = torch.get_rng_state()
    whole, rest = mixed(0), mixed(1)
    assert torch.equal(torch.get_rng_state(), state)
    for (images, shares), (images_again, shares_again) in zip(whole[1:], rest, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(shares, shares_again)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))
    assert not torch.equal(whole[0][0], batches[0][0])
    assert not torch.equal(whole[0][0], mixed(0, seed=8)[0][0])
    with pytest.raises(UserError, match="a batch has 5 images"):
        list(mixing([(torch.randn(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))], 0, 0))


def test_the_loss_has_smoothed_labels_and_the_teachers_predictions():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    images = torch.randn(5, 1, 2, 2)
    smoothed = make_criterion(BaselineConfig(smoothing=0.2), None)(logits, images, labels)
    torch.testing.assert_close(smoothed, cross_entropy(logits, labels, label_smoothing=0.2))
    shares = 0.7 * one_hot(labels, 4) + 0.075
    torch.testing.assert_close(make_criterion(BaselineConfig(), None)(logits, images, shares),
                               cross_entropy(logits, shares))  # fmt: skip
    config = BaselineConfig(teacher="any", distillation=0.9, temperature=2.0)
    given, own = Preprocessing((0.5,), (0.25,), 2), Preprocessing((0.3,), (0.5,), 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4)).eval()
    pixels = images * 0.25 + 0.5
    wanted = log_softmax(network((pixels - 0.3) / 0.5) / 2, dim=1)
    divergence = 4 * kl_div(log_softmax(logits / 2, dim=1), wanted, reduction="batchmean", log_target=True)
    torch.testing.assert_close(
        make_criterion(config, Teacher(network, own, given))(logits, images, labels),
        0.1 * cross_entropy(logits, labels) + 0.9 * divergence,
    )


def test_the_average_is_that_of_the_weights_of_all_steps():
    network = small_network()
    descent, flat = descent_of(network)
    learner = AveragingLearner(network, descent, [flat], decay=0.9, warmup=False)
    expected = None
    for step in range(4):
        learner.prepare()
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        learner.step()
        weights = learner.descent.values.clone()
        expected = weights if step == 0 else 0.9 * expected + 0.1 * weights
    found = torch.cat([parameter.flatten() for parameter in learner.average.parameters()])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "augmix-m5-w2-d1"])
def test_automatic_augmentation_changes_images_the_same_way_from_any_step_on(channels, notation):
    config = DataConfig(name="digits", channels=channels, train_images=32)
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=channels)
    data = open_source(config, seed=0).prepare(preprocessing_of(network), CPU)

    def batches(first_step=0, auto_augment=notation):
        return list(data.train_batches(batch_size=8, seed=1, first_step=first_step, auto_augment=auto_augment))

    whole, rest, plain = batches(), batches(2), batches(auto_augment=None)
    for (images, labels), (images_again, labels_again) in zip(whole[2:], rest, strict=True):
        assert torch.equal(images, images_again)
        assert torch.equal(labels, labels_again)
    assert all(map(torch.equal, (labels for _, labels in whole), (labels for _, labels in plain)))
    assert not any(map(torch.equal, (images for images, _ in whole), (images for images, _ in plain)))


def test_muon_computes_in_what_the_cpu_has():
    descent_of(small_network(), opt="muon")
    has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    orthogonal = muon.zeropower_via_newtonschulz(gradient, 8, [(1.5, -0.5, 0.0)] * 20)
    assert orthogonal.dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    torch.testing.assert_close(orthogonal.float(), left @ right, atol=0.05, rtol=0)
