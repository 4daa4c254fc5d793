import logging
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import huggingface_hub.constants
import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pwfn import reach
from pwfn.config import BaselineConfig, ModelConfig, TrialConfig
from pwfn.data import Preprocessing
from pwfn.errors import UserError
from pwfn.export import describe_network, encode_network, load
from pwfn.float_network import baseline_key
from pwfn.models import (
    build_network,
    check_has_weights,
    check_head_is_trained,
    describe_loading,
    preprocessing_of,
)


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with an unusual argument, saved as timm saves it, weights and config.json."""
    network = timm.create_model(
        "test_vit", num_classes=7, patch_size=8, img_size=64, drop_path_rate=0.1, global_pool="avg"
    )
    saved = tmp_path_factory.mktemp("my net")
    timm.models.save_for_hf(network, saved, safe_serialization=True)
    return saved


def _from(folder: Path, *, num_classes: int = 7, **settings: Any) -> torch.nn.Module:
    config = ModelConfig(name=f"local-dir:{folder}", pretrained=True, **settings)
    return build_network(config, num_classes=num_classes, in_channels=3)


class TestLocalFolder:
    def test_weights_and_arguments_come_from_the_folder(self, folder: Path) -> None:
        network = _from(folder)
        assert network.patch_embed.patch_size == (8, 8)
        assert preprocessing_of(network).image_size == 64
        saved = load_file(folder / "model.safetensors")
        assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
        understood = describe_loading(network)
        assert understood.name == "test_vit"
        assert understood.loading.num_loaded == len(saved)

    def test_the_exported_file_carries_its_arguments(self, folder: Path, tmp_path: Path) -> None:
        network = _from(folder)
        assert network.arguments == {"patch_size": 8, "img_size": [64, 64], "global_pool": "avg"}
        images = torch.randn(2, 3, 64, 64)
        (tmp_path / "net.safetensors").write_bytes(encode_network(network, describe_network(network)))
        loaded = load(tmp_path / "net.safetensors")
        assert torch.equal(loaded(images), network(images))
        assert preprocessing_of(loaded) == preprocessing_of(network)

    @pytest.mark.parametrize("is_dynamic", [True, False])
    def test_at_another_size(self, is_dynamic: bool, tmp_path: Path) -> None:
        """Position embeddings are resized when the weights are loaded, or by the network itself for each image."""
        source = timm.create_model("test_vit", num_classes=7, img_size=64, dynamic_img_size=is_dynamic).eval()
        timm.models.save_for_hf(source, tmp_path, safe_serialization=True)
        config = ModelConfig(name=f"local-dir:{tmp_path}", pretrained=True)
        network = build_network(config, num_classes=7, in_channels=3, image_size=32)
        assert describe_loading(network).loading.resized == (() if is_dynamic else ("pos_embed",))
        (tmp_path / "net.safetensors").write_bytes(encode_network(network, describe_network(network)))
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(load(tmp_path / "net.safetensors")(images), network(images))

    def test_a_variable_in_its_path(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETS", str(folder.parent))
        network = build_network(
            ModelConfig(name=f"local-dir:${{NETS}}/{folder.name}", pretrained=True), num_classes=7, in_channels=3
        )
        assert describe_loading(network).name == "test_vit"

    def test_its_name_becomes_a_file_name(self, folder: Path) -> None:
        config = TrialConfig(model=ModelConfig(name=f"local-dir:{folder}", pretrained=True), data={"name": "digits"})
        assert re.fullmatch(r"local-dir_[\w.-]+-[0-9a-f]{16}", baseline_key(config))

    def test_another_number_of_classes_needs_a_new_head_on_request(self, folder: Path) -> None:
        message = r"tells 7 classes apart \(head\.weight\), but the data has 5; model\.new_head: true replaces"
        with pytest.raises(UserError, match=message):
            _from(folder, num_classes=5)
        network = _from(folder, num_classes=5, new_head=True)
        understood = describe_loading(network)
        assert understood.loading.new_head == ("head.weight", "head.bias")
        assert "the classifier is new and knows nothing yet (head.weight, head.bias)" in understood.lines()[-1]
        trial = TrialConfig(model={"new_head": True, "pretrained": True}, data={"name": "digits"})
        with pytest.raises(
            UserError, match=r"^model\.new_head: the new classifier \(head\.weight\) is random; train it"
        ):
            check_head_is_trained(trial, network)
        check_head_is_trained(trial.model_copy(update={"baseline": BaselineConfig(epochs=1)}), network)

    def test_no_such_folder_and_no_such_architecture(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"^model\.name: .* has no config\.json; timm's save_for_hf writes"):
            _build(f"local-dir:{tmp_path}")
        (tmp_path / "config.json").write_text('{"architecture": "resnet_of_tomorrow"}')
        with pytest.raises(UserError, match=r"names the architecture 'resnet_of_tomorrow', which timm does not know"):
            _build(f"local-dir:{tmp_path}")
        (tmp_path / "config.json").write_text("[]")
        with pytest.raises(UserError, match=r"config\.json names no architecture of timm's"):
            _build(f"local-dir:{tmp_path}")

    def test_a_file_of_weights(self) -> None:
        with pytest.raises(UserError, match=r"^model\.name: './net\.pth' is a file; it goes to model\.checkpoint, and"):
            _build("./net.pth")

    def test_a_path_without_its_source(self) -> None:
        with pytest.raises(
            UserError, match=r"^model\.name: .* Use 'hf-hub:timm/resnet18' .* 'local-dir:timm/resnet18'"
        ):
            _build("timm/resnet18")


class TestArguments:
    def test_they_reach_the_network_and_the_exported_file(self, tmp_path: Path) -> None:
        config = ModelConfig(name="test_vit", kwargs={"patch_size": 8, "img_size": 32, "global_pool": "avg"})
        network = build_network(config, num_classes=5, in_channels=3)
        assert network.patch_embed.patch_size == (8, 8)
        assert network.global_pool == "avg"
        assert preprocessing_of(network).image_size == 32
        (tmp_path / "net.safetensors").write_bytes(encode_network(network, describe_network(network)))
        loaded = load(tmp_path / "net.safetensors")
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(loaded(images), network(images))
        assert "network: test_vit, patch_size=8, img_size=32, global_pool=avg, " in describe_loading(network).lines()[0]

    def test_they_belong_to_the_float_networks_key(self) -> None:
        def key(**settings: Any) -> str:
            return baseline_key(TrialConfig(model=ModelConfig(name="test_vit", **settings), data={"name": "digits"}))

        assert len({key(), key(kwargs={"patch_size": 8}), key(fuse=True), key(pretrained=True)}) == 4
        assert key() == key(random=True) == key(equalize="layer")
        assert key() == "test_vit-33cfcd5d4b4a9081"  # as it was before fields were added: float networks are kept

    def test_unknown_ones(self) -> None:
        config = ModelConfig(name="test_vit", kwargs={"patchsize": 8})
        with pytest.raises(UserError, match=r"^model: test_vit cannot be built .*model\.kwargs=.*patchsize"):
            build_network(config, num_classes=5, in_channels=3)

    def test_those_that_make_no_network(self) -> None:
        config = ModelConfig(name="test_vit", kwargs={"num_heads": 0})
        with pytest.raises(UserError, match=r"^model: test_vit cannot be built .*model\.kwargs=.*num_heads"):
            build_network(config, num_classes=5, in_channels=3)

    @pytest.mark.parametrize("name", ["num_classes", "pretrained", "checkpoint_path", "features_only"])
    def test_those_that_have_a_field_of_their_own(self, name: str) -> None:
        with pytest.raises(ValidationError, match=f"{name} is no argument of the architecture; "):
            ModelConfig(kwargs={name: 3})


class TestRandomNetworks:
    @pytest.mark.parametrize(
        ("model", "epochs"),
        [({"random": True}, 0), ({}, 1), ({"pretrained": True}, 0), ({"checkpoint": "net.pth"}, 0)],
    )
    def test_networks_with_weights_pass(self, model: dict[str, Any], epochs: int) -> None:
        check_has_weights(TrialConfig(model=model, data={"name": "digits"}, baseline={"epochs": epochs}))

    def test_others_are_refused(self) -> None:
        message = r"^model\.name=resnet18: its weights are random.*model\.checkpoint.*insist with model\.random: true$"
        with pytest.raises(UserError, match=message):
            check_has_weights(TrialConfig(data={"name": "digits"}))


SLOW_TO_FUSE = ("mobileone_s0", "fastvit_t8", "levit_128s", "repvit_m1", "resnetv2_50x1_bit", "vit_tiny_r_s16_p8_224")


class TestFusing:
    @pytest.mark.parametrize(
        "name", ["test_nfnet", "repvgg_a0", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TO_FUSE)]
    )
    def test_the_fused_network_computes_the_same_with_fewer_kinds_of_weights(self, name: str, tmp_path: Path) -> None:
        settings = {"num_classes": 5, "in_channels": 3, "seed": 3}
        plain = build_network(ModelConfig(name=name), **settings)
        fused = build_network(ModelConfig(name=name, fuse=True), **settings)
        side = preprocessing_of(plain).image_size
        images = torch.randn(1, 3, side, side)
        torch.testing.assert_close(fused(images), plain(images), rtol=1e-3, atol=1e-4)
        before, after = describe_loading(plain), describe_loading(fused)
        assert before.fusible or before.computed_weights
        assert len(before.warnings) == 1
        assert "model.fuse: true" in before.warnings[0]
        assert not after.warnings
        assert after.coverage >= before.coverage
        (tmp_path / "net.safetensors").write_bytes(encode_network(fused, describe_network(fused)))
        assert torch.equal(load(tmp_path / "net.safetensors")(images), fused(images))

    def test_a_fused_network_trains_all_its_parameters(self) -> None:
        fused = build_network(ModelConfig(name="repvgg_a0", fuse=True), num_classes=5, in_channels=3)
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in fused.parameters())


class TestWithoutNetwork:
    """Nothing answers at the hub's address: on a machine that has a network as well as on one that has none."""

    @pytest.fixture(autouse=True)
    def _silent_hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        with socket.socket() as listener:  # accepts and never says anything
            listener.bind(("127.0.0.1", 0))
            listener.listen(8)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
            monkeypatch.setattr(reach, "PATIENCE_SECONDS", 0.5)
            yield

    @pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
    def test_one_line_at_once(self, name: str) -> None:
        config = ModelConfig(name=name, pretrained=True)
        started = time.monotonic()
        with pytest.raises(
            UserError, match=r"^model\.pretrained: the weights of .* cannot be had \(.*out of reach\); fetch"
        ):
            build_network(config, num_classes=1000, in_channels=3)
        assert time.monotonic() - started < 5

    def test_cached_weights_are_used(self, tmp_path: Path) -> None:
        state = timm.create_model("test_resnet").state_dict()
        snapshot = tmp_path / "models--timm--test_resnet.r160_in1k" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
        save_file(state, snapshot / "model.safetensors")
        config = ModelConfig(name="test_resnet.r160_in1k", pretrained=True)
        network = build_network(config, num_classes=1000, in_channels=3)
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
        assert describe_loading(network).loading.source == "pretrained weights of test_resnet.r160_in1k"

    def test_a_cached_repository_is_used(self, folder: Path, tmp_path: Path) -> None:
        snapshot = tmp_path / "models--me--mine" / "snapshots" / "abc"
        snapshot.parent.mkdir(parents=True)
        shutil.copytree(folder, snapshot)
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
        config = ModelConfig(name="hf-hub:me/mine", pretrained=True)
        network = build_network(config, num_classes=7, in_channels=3)
        saved = load_file(folder / "model.safetensors")
        assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
        assert describe_loading(network).loading.source == "pretrained weights of hf-hub:me/mine"
        plain = build_network(config.without_weights, num_classes=7, in_channels=3)
        assert plain.patch_embed.patch_size == (8, 8)
        (snapshot / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"^model\.pretrained: the weights of hf-hub:me/mine cannot be had"):
            build_network(config, num_classes=7, in_channels=3)
        (snapshot / "config.json").unlink()
        with pytest.raises(UserError, match=r"^model\.name: hf-hub:me/mine cannot be had \(.*out of reach\); fetch"):
            build_network(config.without_weights, num_classes=7, in_channels=3)

    def test_cached_weights_with_another_head(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.test_cached_weights_are_used(tmp_path)
        config = ModelConfig(name="test_resnet.r160_in1k", pretrained=True)
        message = r"^model\.pretrained: .* tells 1000 classes apart, but the data has 5; model\.new_head: true replaces"
        with pytest.raises(UserError, match=message):
            build_network(config, num_classes=5, in_channels=3)
        with caplog.at_level(logging.INFO, logger="pwfn"):
            network = build_network(config.model_copy(update={"new_head": True}), num_classes=5, in_channels=1)
        assert "the pretrained head has 1000 classes, the data 5: new head" in caplog.text
        assert describe_loading(network).loading.new_head == ("fc.weight", "fc.bias")
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 5)

    @pytest.mark.parametrize("value", [float("nan"), 0.0])
    def test_poisoned_weights_are_refused(self, tmp_path: Path, value: float) -> None:
        self.test_cached_weights_are_used(tmp_path)
        [path] = tmp_path.rglob("model.safetensors")
        state = {name: t.fill_(value) if t.is_floating_point() else t for name, t in load_file(path).items()}
        save_file(state, path)
        config = ModelConfig(name="test_resnet.r160_in1k", pretrained=True)
        with pytest.raises(UserError, match=r"^model\.pretrained: test_resnet\.r160_in1k: .*(NaN|zero)"):
            build_network(config, num_classes=1000, in_channels=3)


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

    def test_pretrained_weights_while_offline(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        config = ModelConfig(name="resnet18", pretrained=True)
        message = r"^model\.pretrained: the weights of resnet18 cannot be had \(HF_HUB_OFFLINE is set\); fetch them "
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
