"""What is said about a network before anything is computed with it."""

import json
import re
from pathlib import Path

import pytest

from pwfn.config import ModelConfig
from pwfn.models import build_network, describe_coverage, describe_loading
from pwfn.models.understood import coverage_warning
from pwfn.parameters import LeftOut, split_parameters

DOCUMENT = Path(__file__).parents[2] / "docs" / "networks.md"


def _network(name, **settings):
    return build_network(ModelConfig(name=name, **settings), num_classes=7, in_channels=3)


def test_three_lines_say_it():
    lines = describe_loading(_network("test_vit", kwargs={"global_pool": "avg"})).lines()
    assert re.fullmatch(r"network: test_vit, global_pool=avg, \d{3},\d{3} parameters", lines[0])
    assert lines[1] == "weights: drawn at random"
    assert re.fullmatch(
        r"sharing values: 97\.\d\d% of the parameters; not VisionTransformer\.pos_embed 2\.\d\d%, .*", lines[2]
    )
    assert len(lines) == 3


def test_it_is_json_too():
    understood = describe_loading(_network("test_nfnet"))
    read = json.loads(json.dumps(understood.to_json()))
    assert read["name"] == "test_nfnet"
    assert read["loading"]["source"] == "drawn at random"
    assert read["coverage"] == understood.coverage == 1
    assert len(read["computed_weights"]) == len(understood.computed_weights) > 10


def test_standardised_weights_are_said_and_fusing_makes_them_plain():
    understood = describe_loading(_network("test_nfnet"))
    [warning] = understood.warnings
    assert re.match(r"\d+ layers multiply by numbers that they compute from the stored values \(stem\.conv1, ", warning)
    assert understood.lines()[-1] == f"warning: {warning}"
    assert not describe_loading(_network("test_nfnet", fuse=True)).warnings


def test_mixtures_are_said_and_nothing_makes_them_plain():
    [warning] = describe_loading(_network("efficientnet_cc_b0_4e")).warnings
    assert warning.endswith("few stored values are not few factors")


def test_branches_that_are_fused_for_use_are_said():
    understood = describe_loading(_network("repvit_m1"))
    assert understood.fusible
    [warning] = [each for each in understood.warnings if "fus" in each]
    assert "model.fuse" in warning
    assert not describe_loading(_network("test_resnet")).fusible


def test_low_coverage_names_what_is_left_out():
    rest = [LeftOut("Net.table", ("table",), 90), LeftOut("norm layers", ("a", "b", "c", "d"), 4)]
    assert coverage_warning(0.95, rest) is None
    assert coverage_warning(0.06, rest) == (
        "only 6.0% of the parameters share values; left out are Net.table (table), norm layers (a, b, c, ...)"
    )


def test_the_coverage_of_a_file_follows_from_the_names_it_lists():
    network = _network("test_resnet")
    fixable = list(split_parameters(network).fixable)
    assert describe_coverage(network, fixable) == "99.4% of all parameters; not norm layers 0.56%"
    everything = [name for name, _ in network.named_parameters()]
    assert describe_coverage(network, everything) == "100.0% of all parameters"


@pytest.mark.parametrize("field", sorted(ModelConfig.model_fields))
def test_the_document_names_every_field(field):
    assert f"`model.{field}" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("name", "size", "seen"),
    [
        ("vit_tiny_patch16_224", 40, 32),
        ("gmlp_ti16_224", 40, 32),  # its classifier begins with zeros
        ("test_convnext", 65, 64),
        ("test_resnet", 45, None),
        ("resnet18", 64, None),  # its residual branches begin with zeros
        ("cifar_cct2", 33, None),
    ],
)
def test_borders_that_a_network_does_not_see_are_said(name, size, seen):
    network = build_network(ModelConfig(name=name), num_classes=7, in_channels=3, image_size=size)
    warnings = [each for each in describe_loading(network).warnings if "pixels" in each]
    expected = (
        f"the network sees {seen}x{seen} pixels of its {size}x{size} images; .* data.image_size={seen} it sees all"
    )
    assert len(warnings) == (0 if seen is None else 1)
    assert all(re.match(expected, each) for each in warnings)
