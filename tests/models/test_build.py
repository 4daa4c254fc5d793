import logging
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import load_pretrained

from pwfn.config import ModelConfig
from pwfn.data import Preprocessing
from pwfn.errors import UserError
from pwfn.models import build_network, preprocessing_of


def _build(name: str, *, num_classes: int = 10, in_channels: int = 3, **settings: Any) -> torch.nn.Module:
    return build_network(ModelConfig(name=name), num_classes=num_classes, in_channels=in_channels, **settings)


def test_network_is_plain() -> None:
    network = _build("resnet18", image_size=32)
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_weights_follow_from_the_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (_build("digits_cnn", in_channels=1, seed=seed).linear.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_preprocessing_is_the_networks_own() -> None:
    card = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32, "bicubic", 1.0)
    assert preprocessing_of(_build("cifar_resnet20")) == card
    vit = preprocessing_of(_build("vit_tiny_patch16_224", image_size=32))
    assert vit == Preprocessing((0.5,) * 3, (0.5,) * 3, 32, "bicubic", 0.9)
    assert preprocessing_of(_build("mobilenetv3_small_050")).image_size == 224


def test_preprocessing_for_other_channels_takes_the_mean_statistics() -> None:
    preprocessing = preprocessing_of(_build("cifar_resnet20", in_channels=1))
    assert preprocessing.mean == pytest.approx((0.449,))
    assert preprocessing.std == pytest.approx((0.226,))


def test_image_size_reaches_networks_of_fixed_size() -> None:
    assert _build("vit_tiny_patch16_224", image_size=48).pos_embed.shape[1] == 1 + 9
    assert _build("mlp_500_300", in_channels=1, image_size=8)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_pretrained_backbone_gets_a_new_head(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The weights come from memory in place of timm's hub; what timm does with them is its own."""
    source = timm.create_model("mobilenetv3_small_050").state_dict()

    def load(model: Any, pretrained_cfg: dict[str, Any], **settings: Any) -> None:
        record = {**pretrained_cfg, "state_dict": dict(source)}
        load_pretrained(model, pretrained_cfg=record, **settings)

    monkeypatch.setattr("timm.models._builder.load_pretrained", load)
    config = ModelConfig(name="mobilenetv3_small_050", pretrained=True)
    with caplog.at_level(logging.INFO, logger="pwfn"):
        network = build_network(config, num_classes=10, in_channels=3, image_size=64)
    assert torch.equal(network.state_dict()["conv_stem.weight"], source["conv_stem.weight"])
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    assert "mobilenetv3_small_050: the pretrained head has 1000 classes, the data 10: new head" in caplog.text


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("resnet81", "resnet"), ("cifar_resnet21", ".*cifar_resnet20"), ("digit_cnn", "digits_cnn")],
    )
    def test_unknown_name(self, name: str, nearest: str) -> None:
        with pytest.raises(
            UserError, match=rf"^model\.name: '{name}' is neither timm's nor ours; did you mean {nearest}"
        ):
            _build(name)

    def test_unknown_weights(self) -> None:
        message = r"^model\.name: resnet18 has no weights 'a9_in1k'; known are a1_in1k, .*a3_in1k"
        with pytest.raises(UserError, match=message):
            _build("resnet18.a9_in1k")

    def test_no_pretrained_weights(self) -> None:
        config = ModelConfig(name="digits_cnn", pretrained=True)
        with pytest.raises(
            UserError, match=r"digits_cnn cannot be built .*: No pretrained weights exist for digits_cnn"
        ):
            build_network(config, num_classes=10, in_channels=1)

    def test_pretrained_weights_without_network(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        config = ModelConfig(name="resnet18", pretrained=True)
        message = r"^model\.pretrained: the weights of resnet18 cannot be had \(.*\); fetch them .* model\.checkpoint$"
        with pytest.raises(UserError, match=message):
            build_network(config, num_classes=10, in_channels=3)

    @pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 8), ("densenet121", 8)])
    def test_image_size_it_cannot_take(self, name: str, size: int) -> None:
        with pytest.raises(
            UserError, match=rf"(data\.image_size: {name} cannot take {size}x{size}|{name} cannot be built)"
        ):
            _build(name, image_size=size)

    def test_network_that_does_not_classify(self) -> None:
        with pytest.raises(UserError, match="test_vit does not give one score per class; only image classifiers"):
            _build("test_vit", num_classes=0)
