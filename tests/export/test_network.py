import io
import json
import resource
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from taken_apart import put_together, take_apart
from torch import nn

import pwfn
from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.export import describe_network, encode_network, encode_state, load_state
from pwfn.export.contents import contents_from
from pwfn.export.layout import write_layout
from pwfn.export.metadata import metadata_from
from pwfn.export.network import stored_state
from pwfn.models import build_network, preprocessing_of
from pwfn.parameters import split_parameters

NETWORKS = {
    "digits_cnn": 1,
    "digits_mlp": 1,
    "cifar_resnet20": 3,
    "cifar_cct2": 3,
    "test_vit": 3,
    "test_efficientnet": 3,
    "test_convnext": 3,
}


def build(name, channels, seed=0):
    """A network of which the fixed set is clustered and nothing is left at a round initial value."""
    network = build_network(ModelConfig(name=name), num_classes=7, in_channels=channels, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=rng) / 9)
        for parameter in split_parameters(network).fixable.values():
            parameter.copy_((parameter * 32).round() / 32)
    return network


def write(path, network, **options):
    path.write_bytes(encode_network(network, describe_network(network), **options))
    return path


def test_a_file_does_not_show_how_weights_lie_in_memory():
    network = build("digits_cnn", 1)
    metadata = describe_network(network)
    expected = encode_network(network, metadata)
    assert encode_network(network.to(memory_format=torch.channels_last), metadata) == expected


def with_metadata(tmp_path, network, **changes):
    """Write a network's file that says something else of its architecture."""
    metadata = asdict(describe_network(network))
    metadata["architecture"] |= changes
    path = tmp_path / "model.pwfn.safetensors"
    path.write_bytes(encode_network(network, metadata))
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_to_the_bit(name, tmp_path):
    network = build(name, NETWORKS[name])
    loaded = pwfn.load(write(tmp_path / "model.safetensors", network))
    expected, found = network.state_dict(), loaded.state_dict()
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert tensor.numpy().tobytes() == found[key].numpy().tobytes(), key
    assert not loaded.training
    assert preprocessing_of(loaded) == preprocessing_of(network)
    channels, side, _ = network.pretrained_cfg["input_size"]
    images = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(images), loaded(images))


def test_the_distinct_values_of_the_file_are_those_of_the_network(tmp_path):
    network = build("cifar_resnet20", 3)
    loaded = pwfn.load(write(tmp_path / "model.safetensors", network))
    before, after = (
        torch.cat([p.detach().flatten() for p in split_parameters(net).fixable.values()]).unique()
        for net in (network, loaded)
    )
    assert len(before) > 10
    assert torch.equal(before, after)


def test_importing_pwfn_needs_no_torch():
    code = "import sys, pwfn; assert 'torch' not in sys.modules; pwfn.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_pwfn_has_no_other_lazy_names():
    with pytest.raises(AttributeError, match="module 'pwfn' has no attribute 'store'"):
        pwfn.store  # noqa: B018


def test_the_preprocessing_comes_back(tmp_path):
    network = build("test_vit", 3)
    network.pretrained_cfg = {
        **network.pretrained_cfg,
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": 0.75,
    }
    network.pretrained_cfg["interpolation"] = "bilinear"
    loaded = pwfn.load(write(tmp_path / "model.safetensors", network))
    assert preprocessing_of(loaded) == preprocessing_of(network)
    assert preprocessing_of(loaded).mean == (0.1, 0.2, 0.3)


def test_a_loaded_network_names_the_class_of_each_score():
    network = build("digits_cnn", 1)
    names = tuple("abcdefg")
    named, nameless = (
        pwfn.load(encode_network(network, describe_network(network, class_names=known))) for known in (names, None)
    )
    assert named.pretrained_cfg["label_names"] == names
    assert not nameless.pretrained_cfg.get("label_names")


def test_metadata_comes_back():
    network = build("digits_cnn", 1)
    metadata = describe_network(
        network, class_names=tuple("abcdefg"), metrics={"test_top1": 0.9, "unique_values": 12}, provenance={"seed": 3}
    )
    found = contents_from(encode_network(network, metadata)).metadata
    assert found == metadata
    assert asdict(found.architecture) == {
        "name": "digits_cnn",
        "num_classes": 7,
        "in_channels": 1,
        "image_size": 8,
        "model_args": {},
        "fused": False,
    }
    assert encode_network(network, asdict(metadata)) == encode_network(network, metadata)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_untouched_tensors_leave_the_fixed_set_alone(dtype, tmp_path):
    network = build("cifar_resnet20", 3)
    path = write(tmp_path / "narrow.safetensors", network, rest_dtype=dtype)
    assert path.stat().st_size < write(tmp_path / "wide.safetensors", network).stat().st_size - 4000
    loaded = pwfn.load(path)
    fixed = split_parameters(network).fixable
    for name, tensor in loaded.state_dict().items():
        original = network.state_dict()[name]
        if name not in fixed and tensor.is_floating_point():
            original = original.to(getattr(torch, dtype)).float()
        assert torch.equal(tensor, original), name


def test_a_value_beyond_float16_is_refused():
    network = build("cifar_resnet20", 3)
    network.bn1.running_var.fill_(1e6)
    message = "tensor bn1.running_var has values beyond the range of torch.float16; use --rest-dtype bfloat16"
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        encode_network(network, describe_network(network), rest_dtype="float16")


def test_the_fixed_set_may_include_norm_layers():
    network = build("cifar_resnet20", 3)
    content = encode_network(network, describe_network(network), include_norm=True)
    names = list(contents_from(content).fixed)
    assert "bn1.weight" in names
    assert "bn1.running_mean" not in names


def test_an_uncompressed_network_loses_some_bits_of_its_exponents(tmp_path):
    network = build_network(ModelConfig(name="cifar_resnet20"), num_classes=10, in_channels=3)
    path = write(tmp_path / "model.safetensors", network)
    assert not {name for name in contents_from(path.read_bytes()).coded if name.endswith("conv1.weight")}
    assert path.stat().st_size < 0.9 * 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    loaded = pwfn.load(path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())


def test_sigmas_come_back():
    network = build("digits_cnn", 1)
    fixed = split_parameters(network).fixable
    rng = torch.Generator().manual_seed(0)
    sigmas = {
        name: torch.tensor([0.0, 0.01, 0.5])[torch.randint(3, p.shape, generator=rng)] for name, p in fixed.items()
    }
    first = next(iter(sigmas))
    sigmas[first] = torch.rand(sigmas[first].shape, generator=rng)  # not shared
    found = contents_from(encode_network(network, describe_network(network), sigmas=sigmas)).sigmas
    assert list(found) == list(fixed)
    assert all(torch.equal(found[name], sigmas[name]) for name in fixed)


def test_a_file_with_sigmas_loads(tmp_path):
    network = build("digits_cnn", 1)
    sigmas = {name: torch.rand_like(p) for name, p in split_parameters(network).fixable.items()}
    loaded = pwfn.load(write(tmp_path / "model.safetensors", network, sigmas=sigmas))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_shared_parameter_is_stored_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = nn.Linear(6, 6)
            self.second.weight = self.first.weight

    assert list(stored_state(Tied())) == ["first.weight", "first.bias", "second.bias"]


def test_a_state_without_architecture_is_read_but_not_built(tmp_path):
    path = tmp_path / "state.safetensors"
    state = {"w": torch.ones(30, 30), "b": torch.randn(5)}
    path.write_bytes(encode_state(state, {"n": torch.tensor(1)}, {}))
    assert {name: tensor.tolist() for name, tensor in load_state(path).items()} == {
        name: tensor.tolist() for name, tensor in (state | {"n": torch.tensor(1)}).items()
    }
    with pytest.raises(UserError, match=r"names no architecture; read its tensors with pwfn\.export\.load_state"):
        pwfn.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cifar_resnet32"}, "are not those of the architecture cifar_resnet32: .* missing"),
        ({"name": "resnet_999"}, "'resnet_999' is neither timm's nor ours"),
        ({"num_classes": 9}, r"linear.weight \[7, 64\] instead of \[9, 64\]"),
        pytest.param(
            {"num_classes": 1 << 23}, r"linear.weight \[7, 64\] instead of \[8388608, 64\]", marks=pytest.mark.slow
        ),
        ({"name": "vit_giant_patch14_224"}, "are not those of the architecture vit_giant_patch14_224: .* missing"),
        ({"in_channels": 1}, r"conv1.weight \[16, 3, 3, 3\] instead of \[16, 1, 3, 3\]"),
    ],
)
def test_a_wrong_architecture_is_refused(changes, message, tmp_path):
    path = with_metadata(tmp_path, build("cifar_resnet20", 3), **changes)
    with pytest.raises(UserError, match=message) as error:
        pwfn.load(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("image_size", "fused"), [(8, False), (224, False), (224, True)])
def test_a_wrong_architecture_is_not_built(tmp_path, image_size, fused):
    """Gigabytes of weights would be allocated and drawn before their names could be compared."""
    path = with_metadata(
        tmp_path, build("digits_mlp", 1), name="vit_giant_patch14_224", image_size=image_size, fused=fused
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"are not those of the architecture|cannot take 8x8 images"):
        pwfn.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


ARCHITECTURES = ["digits_mlp", "digits_cnn", "cifar_resnet20", "test_vit", "nothing", ""]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(ARCHITECTURES),
            "num_classes": st.sampled_from([0, 1, 7, 8, 1 << 24]),
            "in_channels": st.sampled_from([1, 2, 3, 1 << 12, 1 << 24]),
            "image_size": st.sampled_from([1, 7, 8, 9, 64, 4096, 1 << 20]),
        },
    )
)
def test_edited_architectures_raise_our_error_only(changes):
    network = build("digits_mlp", 1)
    layout, sizes, rest = take_apart(encode_network(network, describe_network(network)))
    metadata = json.loads(layout.metadata)
    metadata["architecture"] |= changes
    edited = put_together(write_layout(replace(layout, metadata=json.dumps(metadata))), sizes, rest)
    try:
        loaded = pwfn.load(edited)
    except UserError:
        return
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    "changes", [{"name": "hf-hub:someone/model"}, {"image_size": 1 << 20}, {"in_channels": 1 << 24}, {"num_classes": 0}]
)
def test_metadata_that_would_download_or_allocate_are_refused(changes):
    architecture = {"name": "resnet18", "num_classes": 10, "in_channels": 3, "image_size": 32} | changes
    with pytest.raises(
        ValueError, match=r"should match pattern|numbers; at most 16777216|is not a whole number from 1"
    ):
        metadata_from({"architecture": architecture})


@pytest.mark.parametrize(("name", "message"), [("none", "No such file"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(name, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        pwfn.load(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of git-lfs"),
        (b"PK\x03\x04 and so on", "export it with --state-dict"),
    ],
)
def test_what_is_taken_for_a_file_is_named(content, words):
    with pytest.raises(UserError, match=words):
        load_state(content)


def test_a_file_is_read_from_bytes_and_from_an_open_file(tmp_path):
    network = build("digits_cnn", 1)
    path = write(tmp_path / "model", network)
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), file):
            found = pwfn.load(source).state_dict()
            assert all(torch.equal(tensor, found[name]) for name, tensor in network.state_dict().items())


def test_a_network_goes_to_a_device(tmp_path):
    network = build("digits_cnn", 1)
    assert {
        p.device.type for p in pwfn.load(encode_network(network, describe_network(network)), "meta").parameters()
    } == {"meta"}
    with pytest.raises(UserError, match="device warp: "):
        pwfn.load(write(tmp_path / "model", network), device="warp")


def test_what_is_no_source_is_said(tmp_path):
    with pytest.raises(UserError, match="int is neither a path nor bytes nor an open file"):
        pwfn.load(3)
    path = write(tmp_path / "model", build("digits_cnn", 1))
    path.write_text("text")
    with path.open() as file, pytest.raises(UserError, match="is not open in binary mode; open it with 'rb'"):
        load_state(file)


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp", "cifar_resnet20", "cifar_cct2"])
def test_our_own_networks_can_be_scripted(name):
    network = build(name, NETWORKS[name])
    channels, side, _ = network.pretrained_cfg["input_size"]
    images = torch.randn(2, channels, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, yet in use
        scripted = torch.jit.script(network)
    assert torch.equal(scripted(images), network(images))


OTHERS = (
    "ray", "optuna", "pyarrow", "pandas", "sklearn", "scipy", "duckdb", "moocore", "matplotlib", "plotly", "pydantic",
    "constriction", "datasets", "rich",
)  # fmt: skip
"""What must not be needed to load a file."""


def run_without(others, code):
    script = f"import sys\nfor name in {others}: sys.modules[name] = None\n{code}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_loading_takes_torch_and_timm_but_nothing_else(tmp_path):
    path = write(tmp_path / "model", build("digits_cnn", 1))
    run_without(OTHERS, f"import pwfn; pwfn.load({str(path)!r})")


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", *(pytest.param(name, marks=pytest.mark.slow) for name in ("digits_cnn", "digits_mlp"))]
)
def test_networks_of_our_own_take_torch_alone(name, tmp_path):
    """timm imports torchvision, whatever the network."""
    path = write(tmp_path / "model", build(name, NETWORKS[name]))
    run_without((*OTHERS, "timm", "torchvision"), f"import pwfn; pwfn.load({str(path)!r})")


BESIDE_TORCH = (*OTHERS, "timm", "torchvision", "safetensors", "huggingface_hub", "PIL", "numpy", "yaml")


def test_reading_tensors_takes_torch_alone(tmp_path):
    network = build("digits_cnn", 1)
    path = write(tmp_path / "model", network)
    torch.save(stored_state(network), tmp_path / "plain.pth")
    run_without(
        BESIDE_TORCH,
        f"""
import torch
from pwfn.export import load_state
found, plain = load_state({str(path)!r}), torch.load({str(tmp_path / "plain.pth")!r})
assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)
""",
    )


def test_a_file_of_version_1_says_which_package_it_takes():
    old = Path(__file__).parent / "version1" / "small.safetensors"
    run_without(
        BESIDE_TORCH,
        f"""
from pwfn.errors import UserError
from pwfn.export import load_state
try:
    load_state({str(old)!r})
except UserError as error:
    assert "pip install constriction" in str(error), error
else:
    raise SystemExit("it was read")
""",
    )
