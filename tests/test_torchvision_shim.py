"""The shim needs a fresh interpreter each time: operators are declared once per process."""

import subprocess
import sys

import pytest


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_torchvision_and_timm_work_after_the_shim() -> None:
    code = """
import pwfn.torchvision_shim
import timm, torch
from PIL import Image
from timm.data import create_transform
from torchvision import datasets, models, transforms
pixels = create_transform(8)(Image.new("RGB", (20, 10), "red"))
assert pixels.shape == (3, 8, 8) and float(pixels[0].min()) > 2 > 0 > float(pixels[1].max())
assert timm.create_model("resnet18", num_classes=3).fc.weight.shape == (3, 512)
"""
    finished = _run(code)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_declares_only_where_the_operators_cannot_load() -> None:
    healthy = _run("import torchvision").returncode == 0
    declared = _run("import pwfn.torchvision_shim as shim; print(shim._declared is not None)")
    assert declared.stdout.strip() == str(not healthy), declared.stderr


@pytest.mark.slow
def test_leaves_existing_operators_alone() -> None:
    code = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl(name, lambda dets, scores, iou_threshold: scores + 1, "CPU")
import pwfn.torchvision_shim as shim
assert shim._declared is None
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.tensor([41.0]), 0.5).item())
"""
    finished = _run(code)
    assert finished.stdout.strip() == "42.0", finished.stderr
