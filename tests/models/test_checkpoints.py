"""Weights of one's own into a network: containers, prefixes, heads, sizes, damage, and what is no checkpoint."""

import argparse
import collections
import contextlib
import gzip
import json
import pathlib
import re
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.export import describe_network, encode_network
from pwfn.models import build_network, describe_loading, read_state
from pwfn.models.containers import EMA_KEYS, RAW_KEYS


def _build(
    checkpoint: Path | str | None,
    *,
    name: str = "digits_cnn",
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int | None = None,
    seed: int = 1,
    **model: Any,
) -> nn.Module:
    config = ModelConfig(name=name, checkpoint=None if checkpoint is None else str(checkpoint), **model)
    return build_network(config, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return _build(None, seed=0).state_dict()


@pytest.fixture
def average() -> dict[str, Tensor]:
    return _build(None, seed=9).state_dict()


def _same(network: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def _loading(network: nn.Module) -> Any:
    return describe_loading(network).loading


def test_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "net.safetensors")
    network = _build(tmp_path / "net.safetensors")
    assert _same(network, state)
    assert not _same(_build(None), state)
    assert _loading(network).num_loaded == len(state)
    assert _loading(network).source == str(tmp_path / "net.safetensors")
    assert _loading(_build(None)).source == "drawn at random"


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".ckpt", ".bin", ".pth.tar", ""])
def test_any_suffix(state: dict[str, Tensor], tmp_path: Path, suffix: str) -> None:
    torch.save(state, tmp_path / f"net{suffix}")
    assert _same(_build(tmp_path / f"net{suffix}"), state)


@pytest.mark.parametrize("name", ["net.pth", "net.bin"])
def test_safetensors_under_another_suffix(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    save_file(state, tmp_path / name)
    assert _same(_build(tmp_path / name), state)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "keys",
    [*RAW_KEYS, *EMA_KEYS, "model.state_dict"],
)
def test_containers(state: dict[str, Tensor], tmp_path: Path, keys: str, new_format: bool) -> None:
    content: dict[str, Any] = state
    for key in reversed(keys.split(".")):
        content = {"epoch": 3, key: content, "optimizer": {"state": {0: {"step": torch.tensor(1)}}}}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=new_format)
    network = _build(tmp_path / "net.pth")
    assert _same(network, state)
    assert _loading(network).container == keys
    assert _loading(network).is_ema == (keys in EMA_KEYS)


class Custom:
    """A class of a training script."""

    def __init__(self) -> None:
        self.value = 3


@pytest.mark.parametrize("new_format", [True, False])
def test_what_training_scripts_save_beside_weights(
    state: dict[str, Tensor], average: dict[str, Tensor], tmp_path: Path, new_format: bool
) -> None:
    """A file as timm's train.py writes it, and objects of numpy and of pathlib."""
    beside = {
        "epoch": 7,
        "arch": "digits_cnn",
        "args": argparse.Namespace(model="digits_cnn", lr=0.1, output=pathlib.Path("/runs"), mean=(0.5,)),
        "metric": np.float64(0.9),
        "history": np.arange(3.0),
        "seen": collections.Counter("aab"),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "amp_scaler": {"scale": 65536.0},
        "version": 2,
    }
    beside |= {"custom": Custom()} if new_format else {}
    content = {"state_dict": state, "state_dict_ema": average, **beside}
    torch.save(content, tmp_path / "net.pth.tar", _use_new_zipfile_serialization=new_format)
    raw, ema = (_build(tmp_path / "net.pth.tar", ema=ema) for ema in (False, True))
    assert _same(raw, state)
    assert _same(ema, average)
    assert "under state_dict, a moving average is there too (model.ema: true)" in describe_loading(raw).lines()[1]
    assert "under state_dict_ema, the moving average, raw weights are there too" in describe_loading(ema).lines()[1]


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (pathlib.Path.touch, (self.path,))


class MaliciousEval:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.path)!r}, 'w')",))


@pytest.mark.parametrize("kind", [Malicious, MaliciousEval])
@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_in_a_file_is_run(state: dict[str, Tensor], tmp_path: Path, kind: Any, new_format: bool) -> None:
    content = {"state_dict": state, "args": kind(tmp_path / "trap")}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=new_format)
    with contextlib.suppress(UserError):
        _build(tmp_path / "net.pth")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.backbone.",
        "net.",
    ],
)
def test_prefixes_that_all_names_carry(state: dict[str, Tensor], tmp_path: Path, prefix: str) -> None:
    old = {f"{prefix}{name}": tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    torch.save(OrderedDict(old), tmp_path / "net.pth")
    assert _same(_build(tmp_path / "net.pth"), state)


def test_what_a_module_holds_beside_the_network_is_left_out_and_stated(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    inside = {f"model.{name}": tensor for name, tensor in state.items()}
    torch.save(inside | {"loss.weight": torch.ones(3)}, tmp_path / "a")
    network = _build(tmp_path / "a")
    assert _same(network, state)
    assert _loading(network).left_out == ("loss.weight",)
    twice = inside | {f"teacher.{name}": tensor for name, tensor in state.items()}
    torch.save(twice, tmp_path / "b")  # which of the two is meant?
    with pytest.raises(UserError, match=r"belongs to another architecture, of 20 keys: 17 missing .*40 unexpected"):
        _build(tmp_path / "b")


def test_what_torch_puts_inside_names_is_stripped(state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {
        name.replace("conv.", "_checkpoint_wrapped_module._orig_mod.conv."): tensor for name, tensor in state.items()
    }
    torch.save({f"_fsdp_wrapped_module.{name}": tensor for name, tensor in old.items()}, tmp_path / "net.pth")
    assert _same(_build(tmp_path / "net.pth"), state)


def test_the_only_entry_of_named_tensors_is_taken_whatever_it_is_called(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"my_weights": state, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "net.pth")
    network = _build(tmp_path / "net.pth")
    assert _same(network, state)
    assert _loading(network).container == "my_weights"


def test_bookkeeping_is_left_out_and_stated(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Counts of thop beside every layer, and of torch's averaged models."""
    extra = {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1, dtype=torch.float64)}
    content = {f"module.{name}": tensor for name, tensor in {**state, **extra}.items()} | {
        "n_averaged": torch.tensor(3)
    }
    torch.save(content, tmp_path / "net.pth")
    network = _build(tmp_path / "net.pth")
    assert _same(network, state)
    assert sorted(_loading(network).left_out) == [
        "module.features.0.total_params", "module.total_ops", "n_averaged",
    ]  # fmt: skip


class TestShards:
    @pytest.fixture
    def index(self, state: dict[str, Tensor], tmp_path: Path) -> Path:
        names = list(state)
        shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, held in shards.items():
            save_file({name: state[name] for name in held}, tmp_path / file)
        weight_map = {name: file for file, held in shards.items() for name in held}
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return path

    def test_all_shards_are_read(self, index: Path, state: dict[str, Tensor]) -> None:
        assert _same(_build(index), state)
        assert _same(_build(index.parent), state)

    def test_a_missing_shard_is_named(self, index: Path) -> None:
        (index.parent / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(UserError, match=r"names shards that are missing: model-00002-of-00002\.safetensors$"):
            _build(index)

    def test_a_missing_tensor_is_named(self, index: Path, state: dict[str, Tensor]) -> None:
        shard = index.parent / "model-00002-of-00002.safetensors"
        save_file({"linear.bias": state["linear.bias"]}, shard)
        with pytest.raises(UserError, match="promises tensors that no shard holds: "):
            _build(index)

    def test_a_shard_elsewhere_is_refused(self, index: Path) -> None:
        index.write_text(json.dumps({"weight_map": {"a": "../net.safetensors"}}))
        with pytest.raises(UserError, match="names shards that are missing"):
            _build(index)

    def test_no_index(self, index: Path) -> None:
        index.write_text("[]")
        with pytest.raises(UserError, match="is no index of shards: it has no weight_map"):
            _build(index)


class TestOtherHeadsAndSizes:
    def test_a_new_head_on_request(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(state, tmp_path / "net.safetensors")
        message = (
            r"net\.safetensors tells 10 classes apart \(linear\.weight\), but the data has 100; model\.new_head: true"
        )
        with pytest.raises(UserError, match=message):
            _build(tmp_path / "net.safetensors", num_classes=100)
        network = _build(tmp_path / "net.safetensors", num_classes=100, new_head=True)
        assert _loading(network).new_head == ("linear.weight", "linear.bias")
        assert torch.equal(network.state_dict()["features.0.conv.weight"], state["features.0.conv.weight"])
        assert torch.equal(network.linear.weight, _build(None, num_classes=100).linear.weight)

    def test_position_embeddings_of_another_size(self, tmp_path: Path) -> None:
        source = timm.create_model("test_vit", num_classes=6, img_size=160)
        torch.save({"state_dict": source.state_dict()}, tmp_path / "net.pth")
        network = _build(tmp_path / "net.pth", name="test_vit", num_classes=6, in_channels=3, image_size=64)
        assert _loading(network).resized == ("pos_embed",)
        source.set_input_size((64, 64))  # timm's own way
        torch.testing.assert_close(network.pos_embed, source.pos_embed, rtol=0, atol=1e-5)
        assert torch.equal(network.head.weight, source.head.weight)
        assert torch.equal(network.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)

    def test_both_at_once(self, tmp_path: Path) -> None:
        source = timm.create_model("test_vit", num_classes=6, img_size=160)
        torch.save(source.state_dict(), tmp_path / "net.pth")
        settings = {"name": "test_vit", "num_classes": 4, "in_channels": 3, "image_size": 64}
        with pytest.raises(UserError, match=r"tells 6 classes apart \(head\.weight\), but the data has 4"):
            _build(tmp_path / "net.pth", **settings)
        network = _build(tmp_path / "net.pth", **settings, new_head=True)
        assert _loading(network).new_head == ("head.weight", "head.bias")
        assert _loading(network).resized == ("pos_embed",)
        assert torch.equal(network.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)

    @pytest.mark.parametrize(
        ("name", "theirs"),
        [("densenet121", "densenet121"), pytest.param("vgg11_bn", "vgg11_bn", marks=pytest.mark.slow)],
    )
    def test_torchvisions_names(self, name: str, theirs: str, tmp_path: Path) -> None:
        source = getattr(torchvision.models, theirs)(num_classes=10).eval()
        old = {  # as in torchvision's published files
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): tensor
            for key, tensor in source.state_dict().items()
            if "num_batches_tracked" not in key
        }
        torch.save(old, tmp_path / "net.pth")
        network = _build(tmp_path / "net.pth", name=name, in_channels=3)
        assert _loading(network).renamed
        images = torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            torch.testing.assert_close(network(images), source(images))

    @pytest.mark.parametrize("name", ["dla46x_c", "test_vit"])
    def test_what_timm_would_leave_random_is_refused(self, name: str, tmp_path: Path) -> None:
        """timm itself loads DLA without looking what is missing."""
        source = timm.create_model(name, num_classes=6).state_dict()
        gone = next(key for key in source if key.endswith(("bn1.bias", "norm1.bias")))
        torch.save({key: tensor for key, tensor in source.items() if key != gone}, tmp_path / "net.pth")
        with pytest.raises(UserError, match=rf"belongs to another architecture, .*: 1 missing \({gone}\)$"):
            _build(tmp_path / "net.pth", name=name, num_classes=6, in_channels=3)

    def test_another_shape_of_network_is_refused(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        changed = {name: tensor for name, tensor in state.items() if "features.2" not in name}
        changed["features.1.conv.weight"] = torch.ones(48, 24, 5, 5)
        changed |= {f"extra{number}.weight": torch.ones(1) for number in range(5)}
        save_file(changed, tmp_path / "net.safetensors")
        with pytest.raises(
            UserError, match=r"net\.safetensors belongs to another architecture, of 20 keys: "
        ) as caught:
            _build(tmp_path / "net.safetensors")
        message = str(caught.value)
        assert "5 missing (features.2.conv.weight, features.2.bn.weight, features.2.bn.bias, ...)" in message
        assert "5 unexpected (extra0.weight, extra1.weight, extra2.weight, ...)" in message
        assert "1 wrongly shaped (features.1.conv.weight (48, 24, 5, 5) instead of (48, 24, 3, 3))" in message

    def test_other_channels(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(state, tmp_path / "net.safetensors")
        message = r"takes images of 1 channels \(features\.0\.conv\.weight\), but the data has 3$"
        with pytest.raises(UserError, match=message):
            _build(tmp_path / "net.safetensors", in_channels=3)


class TestPoison:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("features.1.conv.weight", float("nan"), r"1 of 10368 numbers of tensor features\.1\.conv\.weight are NaN"),
            ("linear.bias", float("inf"), r"1 of 10 numbers of tensor linear\.bias are NaN or infinite"),
            ("features.0.bn.running_mean", float("nan"), r"tensor features\.0\.bn\.running_mean are NaN"),
            ("features.0.bn.running_var", float("-inf"), r"tensor features\.0\.bn\.running_var are NaN"),
            ("features.0.bn.running_var", -1.0, r"tensor features\.0\.bn\.running_var has negative numbers"),
        ],
    )
    def test_one_bad_number(
        self, state: dict[str, Tensor], tmp_path: Path, name: str, value: float, message: str
    ) -> None:
        state[name].view(-1)[0] = value
        save_file(state, tmp_path / "net.safetensors")
        with pytest.raises(UserError, match=message):
            _build(tmp_path / "net.safetensors")

    def test_tensors_of_any_name_are_looked_at(self, tmp_path: Path) -> None:
        """ConvNeXt's scales are called gamma."""
        source = timm.create_model("test_convnext", num_classes=6).state_dict()
        source["stages.0.blocks.0.gamma"].view(-1)[0] = float("nan")
        torch.save(source, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"1 of 24 numbers of tensor stages\.0\.blocks\.0\.gamma are NaN"):
            _build(tmp_path / "net.pth", name="test_convnext", num_classes=6, in_channels=3)

    def test_a_shape_without_numbers(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(state | {"linear.weight": state["linear.weight"].to("meta")}, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"tensor linear\.weight has a shape but no numbers \(device meta\)"):
            _build(tmp_path / "net.pth")

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
    def test_types_that_are_no_weights(self, state: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype) -> None:
        state["linear.weight"] = state["linear.weight"].to(dtype)
        torch.save(state, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"tensor linear\.weight is torch\.\w+(,| without its scales)"):
            _build(tmp_path / "net.pth")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions_are_read(self, state: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype) -> None:
        torch.save({n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "net.pth")
        network = _build(tmp_path / "net.pth")
        assert torch.equal(network.linear.weight, state["linear.weight"].to(dtype).float())
        assert network.linear.weight.dtype == torch.float32

    def test_nothing_but_zeros(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file({name: torch.zeros_like(tensor) for name, tensor in state.items()}, tmp_path / "net.safetensors")
        with pytest.raises(UserError, match=r"all weights are zero, features\.0\.conv\.weight first"):
            _build(tmp_path / "net.safetensors")

    def test_sparse(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        state["linear.weight"] = state["linear.weight"].to_sparse()
        torch.save(state, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"tensor linear\.weight is sparse"):
            _build(tmp_path / "net.pth")


def test_variable_in_the_path(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(state, tmp_path / "net.safetensors")
    monkeypatch.setenv("NETS", str(tmp_path))
    assert _same(_build("${NETS}/net.safetensors"), state)


def test_a_state_dict_without_a_network(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "net.ckpt")
    assert read_state(tmp_path / "net.ckpt").keys() == state.keys()


class TestWhatIsNoCheckpoint:
    def _refused(self, path: Path, message: str, **settings: Any) -> str:
        with pytest.raises(UserError, match=message) as caught:
            _build(path, **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self._refused(tmp_path / "net.pth", r"^model\.checkpoint: .*net\.pth does not exist$")

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("keep", [0, 30, 2000])
    def test_corrupt(self, state: dict[str, Tensor], tmp_path: Path, suffix: str, keep: int) -> None:
        path = tmp_path / f"net{suffix}"
        if suffix == ".pth":
            torch.save(state, path)
        else:
            save_file(state, path)
        path.write_bytes(path.read_bytes()[:keep])
        self._refused(path, r"^model\.checkpoint: .* (is empty; copy|is not a readable checkpoint: )")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"this is a text file", r"is not a readable checkpoint: it is damaged, or no checkpoint$"),
            (b"", r"is empty; copy or download it again$"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"is a pointer of git-lfs.*git lfs pull"),
            (b"\n<!DOCTYPE html><html>404</html>", r"is a web page, not a checkpoint; download the file"),
            (b"\x89HDF\r\n\x1a\n", r"is an HDF5 file \(Keras\)"),
            (b"\x89PNG\r\n\x1a\n" + bytes(90), r"checkpoint: it is damaged, or no checkpoint$"),
            (b'{"error": "Repository not found"}' + b" " * 90, r"checkpoint: it is damaged, or no checkpoint$"),
            (gzip.compress(b"weights"), r"is an archive; unpack it, and name the checkpoint that it holds$"),
        ],
    )
    def test_other_content(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "net.pth").write_bytes(content)
        self._refused(tmp_path / "net.pth", message)

    def test_torchscript(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:  # torch.jit.save warns that it is deprecated
            archive.writestr("net/constants.pkl", b"")
            archive.writestr("net/code/__torch__.py", b"")
        self._refused(tmp_path / "net.pt", r"is a TorchScript file.*save only network\.state_dict\(\)$")

    def test_archives(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        torch.save(state, tmp_path / "inner.pth")
        with tarfile.open(tmp_path / "net.pth.tar", "w") as tar:
            tar.add(tmp_path / "inner.pth", "inner.pth")
        self._refused(tmp_path / "net.pth.tar", r"is an archive; unpack it, and name the checkpoint that it holds$")
        with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
            archive.write(tmp_path / "inner.pth", "inner.pth")
        self._refused(tmp_path / "net.zip", r"zip archive that torch did not write; it holds inner\.pth; unpack it$")

    def test_a_file_of_our_own(self, tmp_path: Path) -> None:
        network = _build(None)
        path = tmp_path / "net.pwfn.safetensors"
        path.write_bytes(encode_network(network, describe_network(network)))
        self._refused(
            path, r"is a compressed network of pwfn; unpack it: pwfn export .* --safetensors net\.plain\.safet"
        )

    def test_numpy_archive(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "net.npz", weight=np.zeros(3))
        self._refused(tmp_path / "net.npz", r"is a NumPy archive, not a state dict of torch")

    def test_folder(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        self._refused(tmp_path, r"is a folder that holds no checkpoint; name one file$")
        torch.save(state, tmp_path / "a.pth")
        assert _same(_build(tmp_path), state)
        torch.save(state, tmp_path / "b.pth")
        self._refused(tmp_path, r"is a folder that holds a\.pth, b\.pth; name one file$")

    @pytest.mark.parametrize("key", [None, "model", "state_dict"])
    def test_a_pickled_network(self, tmp_path: Path, key: str | None) -> None:
        network = _build(None)
        torch.save(network if key is None else {key: network}, tmp_path / "net.pth")
        self._refused(
            tmp_path / "net.pth", r"(holds a pickled (object|network)|cannot be read safely).*network\.state_dict\(\)$"
        )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([torch.zeros(1)], "holds a list, not a state dict of named tensors"),
            (
                {"epoch": 3},
                r"holds entries that are no tensors \(epoch\); expected a state dict, or one under state_dict",
            ),
            ({}, "holds no tensors"),
            ({"state_dict": {}}, "holds no tensors"),
        ],
    )
    def test_no_state_dict(self, tmp_path: Path, content: Any, message: str) -> None:
        torch.save(content, tmp_path / "net.pth")
        self._refused(tmp_path / "net.pth", message)

    def test_no_average(self, tmp_path: Path, state: dict[str, Tensor]) -> None:
        torch.save({"state_dict": state}, tmp_path / "net.pth")
        self._refused(tmp_path / "net.pth", r"holds no moving average \(model\.ema: true looks for ", ema=True)
