import copy
from pathlib import Path

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from pwfn.config import DataConfig, ModelConfig
from pwfn.data import Data, open_source
from pwfn.models import build_network, preprocessing_of
from pwfn.models.networks import BasicBlock
from pwfn.parameters import FlatParameters, split_parameters

CPU = torch.device("cpu")


@torch.inference_mode()
def _accuracy(network: nn.Module, data: Data, split: str) -> float:
    hits = [network(images).argmax(1) == labels for images, labels in data.batches(split, batch_size=500)]
    return float(torch.cat(hits).float().mean())


def _test_accuracy(name: str, checkpoint: Path, shared_data: Path, test_images: int | None = None) -> float:
    """Accuracy of a float network on CIFAR-10's test images, or on the first of them."""
    network = build_network(ModelConfig(name=name, checkpoint=str(checkpoint)), num_classes=10, in_channels=3)
    limits = {"train_images": 1, "validation_images": 1, "test_images": test_images}
    source = open_source(DataConfig(name="parquet", root=str(shared_data / "cifar10"), **limits), seed=0)
    return _accuracy(network, source.prepare(preprocessing_of(network), CPU), "test")


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "published"), [(20, 0.9173), (32, 0.9263)])
def test_published_resnet_has_its_published_accuracy(depth: int, published: float, shared_data: Path) -> None:
    checkpoint = shared_data / "resnet_cifar10" / f"resnet{depth}.safetensors"
    assert _test_accuracy(f"cifar_resnet{depth}", checkpoint, shared_data) == pytest.approx(published, abs=1e-6)


def test_published_resnet_on_a_part_of_the_test_set(shared_data: Path) -> None:
    checkpoint = shared_data / "resnet_cifar10" / "resnet20.safetensors"
    found = _test_accuracy("cifar_resnet20", checkpoint, shared_data, test_images=600)
    assert found == pytest.approx(0.9173, abs=0.03)  # +-0.011 is one sigma


COMPACT_TRANSFORMER = Path(__file__).parents[2] / "docs" / "results" / "models" / "cct4-float.safetensors"


def test_our_compact_transformer_is_small() -> None:
    assert COMPACT_TRANSFORMER.stat().st_size < 1_000_000
    assert {tensor.dtype for tensor in load_file(COMPACT_TRANSFORMER).values()} == {torch.float16}


@pytest.mark.slow
def test_our_compact_transformer_has_its_accuracy(shared_data: Path) -> None:
    assert _test_accuracy("cifar_cct4", COMPACT_TRANSFORMER, shared_data) == pytest.approx(0.9092, abs=0.0003)


@pytest.mark.parametrize(
    ("name", "shape", "num_weights"),
    [
        ("cifar_resnet20", (3, 32, 32), 269_722),
        ("cifar_resnet32", (3, 32, 32), 464_154),
        ("cifar_resnet44", (3, 32, 32), 658_586),
        ("cifar_resnet56", (3, 32, 32), 853_018),
        ("cifar_cct2", (3, 32, 32), 283_723),
        ("cifar_cct4", (3, 32, 32), 482_123),
        ("digits_cnn", (1, 8, 8), 32_050),
        ("digits_mlp", (1, 8, 8), 17_226),
        ("mlp_500_300", (1, 28, 28), 545_810),
    ],
)
def test_our_networks_are_timms_too(name: str, shape: tuple[int, int, int], num_weights: int) -> None:
    network = timm.create_model(name)
    assert name in timm.list_models()
    assert timm.data.resolve_model_data_config(network)["input_size"] == shape
    assert sum(parameter.numel() for parameter in network.parameters()) == num_weights
    assert network(torch.zeros(2, *shape)).shape == (2, 10)
    assert timm.create_model(name, num_classes=7)(torch.zeros(2, *shape)).shape == (2, 7)


def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    block = BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    images = torch.rand(2, 4, 6, 6)
    expected = torch.zeros(2, 8, 3, 3)
    expected[:, 2:6] = images[:, :, [0, 2, 4]][:, :, :, [0, 2, 4]]
    torch.testing.assert_close(block(images), expected)


@pytest.mark.parametrize(("name", "floor"), [("digits_cnn", 0.975), ("digits_mlp", 0.95)])
def test_digits_networks_learn_digits(name: str, floor: float) -> None:
    network = build_network(ModelConfig(name=name), num_classes=10, in_channels=1)
    source = open_source(DataConfig(name="digits", augmentation="none"), seed=0)
    data = source.prepare(preprocessing_of(network), CPU)
    optimizer = torch.optim.Adam(network.train().parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12 * data.num_steps(64))
    for epoch in range(12):
        for images, labels in data.train_batches(batch_size=64, seed=epoch):
            optimizer.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
    assert _accuracy(network.eval(), data, "test") > floor


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 32),
        ("mobilenetv3_small_050", 32),
        ("efficientnet_b0", 32),
        ("convnext_atto", 32),
        ("vit_tiny_patch16_224", 32),
        ("deit_tiny_distilled_patch16_224", 32),
        ("densenet121", 32),
        ("cifar_resnet20", None),
        ("cifar_cct2", None),
        ("digits_cnn", None),
        ("digits_mlp", None),
    ],
)
class TestConformance:
    def test_flat_parameters_stand_behind_any_network(self, name: str, size: int | None) -> None:
        grey = name.startswith("digits")
        network = build_network(ModelConfig(name=name), num_classes=5, in_channels=1 if grey else 3, image_size=size)
        preprocessing = preprocessing_of(network)
        images = torch.randn(2, len(preprocessing.mean), preprocessing.image_size, preprocessing.image_size)
        labels = torch.tensor([0, 1])
        plain = copy.deepcopy(network)
        before = plain(images)
        cross_entropy(before, labels).backward()
        sets = split_parameters(network)
        flats = [FlatParameters(part.values()) for part in (sets.fixable, sets.rest)]
        after = network(images)
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-7)  # a view's alignment chooses the kernel
        assert 0 < sets.coverage <= 1
        assert (sets.coverage == 1) == (name == "digits_mlp")
        cross_entropy(after, labels).backward()
        for flat in flats:
            flat.collect_()
        expected = {key: parameter.grad for key, parameter in plain.named_parameters()}
        for flat, part in zip(flats, (sets.fixable, sets.rest), strict=True):
            gradients = flat.gradient.split([parameter.numel() for parameter in part.values()])
            for key, gradient in zip(part, gradients, strict=True):
                torch.testing.assert_close(gradient, expected[key].flatten())
        assert flats[0].gradient.any()
        flats[0].values.zero_()
        assert not torch.equal(network(images), before)


def test_a_compact_transformer_has_layer_norms_and_pools_its_tokens() -> None:
    network = build_network(ModelConfig(name="cifar_cct2"), num_classes=5, in_channels=3, image_size=20)
    kinds = {type(module) for module in network.modules() if not list(module.children())}
    assert {kind.__name__ for kind in kinds if "Norm" in kind.__name__} == {"LayerNorm"}
    sets = split_parameters(network)
    assert {name for name in sets.rest if "norm" not in name} == {"pos_embed"}
    assert sets.rest["pos_embed"].shape == (1, 25, 128)
    assert network.no_weight_decay() == {"pos_embed"}
    images = torch.rand(3, 3, 20, 20)
    # Sequence pooling: with equal scores for all tokens it is their mean.
    nn.init.zeros_(network.pool.weight)
    tokens = network.norm(network.blocks(network.stem(images).flatten(2).transpose(1, 2) + network.pos_embed))
    torch.testing.assert_close(network(images), network.head(tokens.mean(dim=1)))


def test_the_stem_of_a_compact_transformer_gives_what_the_paper_order_gives() -> None:
    network = timm.create_model("cifar_cct2")
    papers = copy.deepcopy(network.stem)
    for conv in (0, 3):  # convolution, ReLU, pooling
        papers[conv + 1], papers[conv + 2] = papers[conv + 2], papers[conv + 1]
    assert [type(layer).__name__ for layer in papers] == ["Conv2d", "ReLU", "MaxPool2d"] * 2
    images = torch.randn(3, 3, 32, 32)
    tokens, expected = network.stem(images), papers(images)
    assert torch.equal(tokens, expected)
    tokens.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(network.stem.parameters(), papers.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_compact_transformer_refuses_another_image_size() -> None:
    network = timm.create_model("cifar_cct2")
    with pytest.raises(RuntimeError, match="size of tensor"):
        network(torch.zeros(1, 3, 64, 64))
