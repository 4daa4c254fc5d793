from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.models import build_network


def _build(checkpoint: Path | str | None, *, num_classes: int = 10, in_channels: int = 1, seed: int = 1) -> nn.Module:
    config = ModelConfig(name="digits_cnn", checkpoint=None if checkpoint is None else str(checkpoint))
    return build_network(config, num_classes=num_classes, in_channels=in_channels, seed=seed)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return _build(None, seed=0).state_dict()


def _same(network: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "net.safetensors")
    assert _same(_build(tmp_path / "net.safetensors"), state)
    assert not _same(_build(None), state)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th"])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_torch_files_also_nested(state: dict[str, Tensor], tmp_path: Path, suffix: str, key: str | None) -> None:
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / f"net{suffix}")
    assert _same(_build(tmp_path / f"net{suffix}"), state)


def test_prefix_is_stripped_and_step_counters_may_be_missing(state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {f"module.{name}": tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    torch.save(OrderedDict(old), tmp_path / "net.pth")
    assert _same(_build(tmp_path / "net.pth"), state)


def test_variable_in_the_path(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(state, tmp_path / "net.safetensors")
    monkeypatch.setenv("NETS", str(tmp_path))
    assert _same(_build("${NETS}/net.safetensors"), state)


class TestErrors:
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
        self._refused(path, r"^model\.checkpoint: .* is not a readable checkpoint: ")

    def test_no_checkpoint_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "net.pth").write_text("this is a text file")
        self._refused(tmp_path / "net.pth", r"^model\.checkpoint: .* is not a readable checkpoint: ")

    def test_other_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "net.onnx").write_bytes(b"")
        self._refused(tmp_path / "net.onnx", r"has the suffix '\.onnx'; allowed are \.safetensors, \.pth, \.pt, \.th$")

    def test_pickled_objects_are_not_run(self, tmp_path: Path) -> None:
        torch.save(_build(None), tmp_path / "net.pth")
        self._refused(
            tmp_path / "net.pth", r"cannot be read safely: it holds Python objects .* network\.state_dict\(\)$"
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
        ],
    )
    def test_no_state_dict(self, tmp_path: Path, content: Any, message: str) -> None:
        torch.save(content, tmp_path / "net.pth")
        self._refused(tmp_path / "net.pth", message)

    def test_other_number_of_classes(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(state, tmp_path / "net.safetensors")
        message = r"net\.safetensors tells 10 classes apart \(linear\.weight\), but the data has 100$"
        self._refused(tmp_path / "net.safetensors", message, num_classes=100)

    def test_other_channels(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(state, tmp_path / "net.safetensors")
        message = r"takes images of 1 channels \(features\.0\.conv\.weight\), but the data has 3$"
        self._refused(tmp_path / "net.safetensors", message, in_channels=3)

    def test_other_architecture(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        changed = {name: tensor for name, tensor in state.items() if "features.2" not in name}
        changed["features.1.conv.weight"] = torch.zeros(48, 24, 5, 5)
        changed |= {f"extra{number}.weight": torch.zeros(1) for number in range(5)}
        save_file(changed, tmp_path / "net.safetensors")
        message = self._refused(tmp_path / "net.safetensors", r"net\.safetensors belongs to another architecture")
        assert "5 missing (features.2.conv.weight, features.2.bn.weight, features.2.bn.bias, ...)" in message
        assert "5 unexpected (extra0.weight, extra1.weight, extra2.weight, ...)" in message
        assert "1 wrongly shaped (features.1.conv.weight (48, 24, 5, 5) instead of (48, 24, 3, 3))" in message
