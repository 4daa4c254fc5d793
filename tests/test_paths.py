from pathlib import Path

import pytest

from pwfn.errors import UserError, nearest_names
from pwfn.paths import expand_path


def test_fills_variables_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", "/images")
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand_path("${IMAGES}/a${IMAGES}", "data.root") == Path("/images/a/images")
    assert expand_path("~/b", "data.root") == Path("/home/someone/b")


def test_shared_data_folder_stands_in_for_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PWFN_DATA", str(tmp_path))
    assert expand_path("${PWFN_DATA}/cifar10", "data.root") == tmp_path / "cifar10"
    monkeypatch.delenv("PWFN_DATA")
    monkeypatch.setattr("pwfn.paths.shared_data_folder", lambda: Path("/shared/data"))
    assert expand_path("${PWFN_DATA}/cifar10", "data.root") == Path("/shared/data/cifar10")


def test_undefined_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError, match=r"data\.root: '\$\{NOWHERE\}/x' needs the environment variable NOWHERE, which"):
        expand_path("${NOWHERE}/x", "data.root")


def test_nearest_names() -> None:
    assert nearest_names("resnet81", ["resnet18", "vgg", "resnet50"], count=1) == "; did you mean resnet18?"
    assert nearest_names("zzz", ["resnet18"]) == ""
