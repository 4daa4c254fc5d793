import functools
import hashlib
import json
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from taken_apart import flipped, put_together, take_apart

from pwfn.errors import UserError
from pwfn.export import alone, encode_state, stream
from pwfn.export.container import TENSOR, envelop
from pwfn.export.contents import DTYPES, contents_from
from pwfn.export.layout import Coding, Kind, Role, number, write_layout
from pwfn.export.reading import read_elements


def small_state():
    rng = torch.Generator().manual_seed(0)
    values = torch.tensor([-0.5, 0.0, 0.25, 0.75])
    fixed = {
        "conv.weight": values[torch.randint(4, (32, 3, 3, 3), generator=rng)],
        "linear.weight": torch.randint(-8, 8, (24, 12), generator=rng) * torch.rand(24, 1, generator=rng),
        "lines.weight": values[torch.randint(4, (40, 40), generator=rng) * (torch.arange(40) % 2)[:, None]],
        "conv.bias": torch.randn(8, generator=rng),
    }
    rest = {"norm.weight": torch.randn(8, generator=rng), "norm.steps": torch.tensor(3)}
    return fixed, rest


@functools.cache
def small_file(class_names=()):
    return encode_state(*small_state(), {"class_names": class_names} if class_names else {})


def edited(place, **changes):
    """The small file with one record's coding or shape changed, under a true checksum."""
    layout, sizes, rest = take_apart(small_file())
    records = list(layout.records)
    coding = {name: value for name, value in changes.items() if name in Coding.__dataclass_fields__}
    others = {name: value for name, value in changes.items() if name not in coding}
    records[place] = replace(records[place], coding=replace(records[place].coding, **coding), **others)
    return put_together(write_layout(replace(layout, records=tuple(records))), sizes, rest)


def place_of(name):
    return [record.name for record in take_apart(small_file())[0].records].index(name)


CONV, LINEAR, LINES = place_of("conv.weight"), place_of("linear.weight"), place_of("lines.weight")


def test_taking_a_file_apart_and_together_keeps_its_contents():
    layout, sizes, rest = take_apart(small_file())
    contents = contents_from(put_together(write_layout(layout), sizes, rest))
    fixed, others = small_state()
    assert contents.fixed.keys() == fixed.keys()
    assert contents.rest.keys() == others.keys()
    for name, tensor in contents.state.items():
        assert torch.equal(tensor, (fixed | others)[name])


def test_the_small_file_has_every_way_of_coding():
    kinds = {record.coding.kind for record in take_apart(small_file())[0].records}
    assert {Kind.PALETTE, Kind.SCALED, Kind.LINES} <= kinds


def test_the_same_contents_give_the_same_bytes():
    assert small_file() == encode_state(*small_state(), {})


def test_any_safetensors_reader_opens_the_file(tmp_path):
    content = small_file()
    assert list(load_safetensors(content)) == [TENSOR]
    (tmp_path / "model").write_bytes(content)
    with safe_open(tmp_path / "model", "pt") as file:
        assert file.get_slice(TENSOR).get_shape() == [len(content) - 8 - int.from_bytes(content[:8], "little")]


def test_a_file_that_safetensors_saved_again_is_read():
    again = save_safetensors(load_safetensors(small_file()), {"format": "pt"})
    fixed, rest = small_state()
    assert all(torch.equal(tensor, (fixed | rest)[name]) for name, tensor in contents_from(again).state.items())


def test_a_file_whose_tensor_was_converted_says_so():
    again = save_safetensors({name: tensor.float() for name, tensor in load_safetensors(small_file()).items()})
    with pytest.raises(UserError, match="is F32 instead of U8: another program converted it"):
        contents_from(again)


def test_every_element_type_comes_back():
    rest = {name: torch.tensor([[0, 1], [1, 0]]).to(torch.float32).to(dtype) for name, dtype in DTYPES.items()}
    found = contents_from(encode_state({"w": torch.zeros(4, 4)}, rest, {})).rest
    assert len(found) == len(DTYPES) >= 17
    for name, tensor in rest.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_metrics_that_are_not_finite_become_null():
    content = encode_state({}, {}, {"metrics": {"test_top1": float("nan"), "epochs": 3, "name": "a"}})
    assert contents_from(content).metadata.metrics == {"test_top1": None, "epochs": 3, "name": "a"}


def test_a_network_of_one_value_still_has_room_for_its_weights():
    content = encode_state({"w": torch.zeros(2000, 2000)}, {}, {})
    assert 2000 * 2000 / 512 <= len(content) < 8_200
    assert torch.equal(contents_from(content).fixed["w"], torch.zeros(2000, 2000))


def test_sigmas_come_back_beside_their_weights():
    weights, sigmas = {"w": torch.zeros(20, 20)}, {"w": torch.rand(20, 20)}
    contents = contents_from(encode_state(weights, {}, {}, sigmas=sigmas))
    assert torch.equal(contents.sigmas["w"], sigmas["w"])
    assert list(contents.state) == ["w"]


def test_every_flip_of_a_single_bit_is_found():
    for damaged in flipped(small_file()):
        with pytest.raises(UserError):
            contents_from(damaged)


def test_every_truncation_is_found():
    content = small_file()
    for length in range(len(content)):
        with pytest.raises(UserError):
            contents_from(content[:length])


def deflated(size):
    """A file whose header claims to inflate to a size."""
    layout, sizes, rest = take_apart(small_file())
    header = zlib.compress(b"\0" * min(size, 1 << 22), 9)
    return envelop(bytes([2]) + b"".join(map(number, [len(header), size, *sizes])) + header + rest)


def joined(**others):
    content = small_file()
    return save_safetensors(load_safetensors(content) | others)


ERRORS = {
    "empty": (b"", "the file is empty; copy or download it again"),
    "text": (b"hello world, this is no model" * 9, r"not a whole pwfn file: 261 bytes, too few for a header of \d{19}"),
    "foreign safetensors": (save_safetensors({"w": torch.zeros(99)}), "not a pwfn file: it has no checksum"),
    "damaged": (small_file()[:-1] + b"?", "the file is damaged: its bytes do not match its checksum; fetch it again"),
    "not JSON": ((2).to_bytes(8, "little") + b'{"', "the header is not JSON"),
    "deep JSON": ((200_000).to_bytes(8, "little") + b"[" * 200_000, "not a valid pwfn file: the header is not JSON"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "the header is no JSON object"),
    "newer": (put_together(b"", [0, 0], b"", version=3), "format version 3 is unknown; this pwfn reads 1 and 2"),
    "joined": (joined(more=torch.zeros(2)), "beside 'pwfn' it holds 'more'; was it joined with other tensors"),
    "header bomb": (deflated(1 << 30), "a header of 1073741824 bytes"),
    "header too long": (deflated(1 << 16), "not a valid pwfn file: "),
    "absurd shape": (edited(CONV, shape=(1 << 40, 9)), r"elements in \d+ bytes, more than 512 per byte"),
    "other shape": (edited(CONV, shape=(31, 3, 3, 3)), "not a valid pwfn file: "),
    "no such table": (edited(CONV, tables=(99,)), "tensor 'conv.weight' has a table that is not there or too long"),
    "too few tables": (edited(CONV, tables=()), "tensor 'conv.weight' has a table that is not there or too long"),
    "no such palette": (edited(CONV, palette=9), "tensor 'conv.weight' is coded in a way that does not exist"),
    "no such part": (edited(LINEAR, part=LINEAR), "tensor 'linear.weight' is coded in a way that does not exist"),
    "groups": (edited(LINEAR, group=7), "tensor 'linear.weight' cannot be cut into its groups"),
    "huge groups": (edited(LINEAR, group=1 << 40), "tensor 'linear.weight' cannot be cut into its groups"),
    "no groups": (edited(LINEAR, group=0), "tensor 'linear.weight' is coded in a way that does not exist"),
    "kernel": (edited(CONV, kernel=(5, 5)), "tensor 'conv.weight' is coded in a way that does not exist"),
    "no kernel": (edited(CONV, kernel=(0, 9)), "tensor 'conv.weight' is coded in a way that does not exist"),
    "thresholds": (edited(CONV, thresholds=(3, 1)), "tensor 'conv.weight' is coded in a way that does not exist"),
    "too few classes": (
        edited(LINES, classes=bytes(79)),
        "'lines.weight' is coded in a way that does not exist",
    ),
    "no tables of classes": (
        edited(LINES, classes=bytes([9] * 80)),
        "'lines.weight' has a table that is not there",
    ),
    "other matrix": (edited(LINES, kernel=(40, 41)), "'lines.weight' is coded in a way that does not exist"),
    "twice": (edited(CONV, name="norm.weight"), "a tensor appears twice"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said(case):
    content, message = ERRORS[case]
    with pytest.raises(UserError, match=message):
        contents_from(content)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "the metadata is not JSON"),
        ("[]", "metadata: an object is needed"),
        ('{"extra":1}', "metadata: extra is unknown"),
        ('{"architecture":{"name":"a"}}', "architecture: num_classes is missing"),
        ('{"class_names":[3]}', "class_names: texts are needed"),
        ('{"metrics":{"a":[]}}', "metrics: numbers and texts by name are needed"),
        (
            '{"preprocessing":{"mean":3,"std":[1],"image_size":3,"interpolation":"a","crop_fraction":1}}',
            "preprocessing.mean",
        ),
    ],
)
def test_wrong_metadata_are_named(metadata, message):
    layout, sizes, rest = take_apart(small_file())
    content = put_together(write_layout(replace(layout, metadata=metadata)), sizes, rest)
    with pytest.raises(UserError, match=f"not a valid pwfn file: metadata {message}|{message}"):
        contents_from(content)


def nested(**options):
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.eye(3).to_sparse(),
            "tensor odd is sparse_coo; only dense tensors can be written: call to_dense",
        ),
        (lambda: torch.eye(3).to_sparse_csr(), "tensor odd is sparse_csr; only dense"),
        (lambda: torch.empty(3, device="meta"), "tensor odd is on the meta device and has no values; load the weights"),
        (lambda: nested(layout=torch.jagged), "tensor odd is jagged; only dense"),
        (nested, "tensor odd is nested; only plain tensors"),
        (
            lambda: torch.zeros(2, dtype=torch.complex128),
            r"tensor odd is torch\.complex128; possible are float64, int64",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:The PyTorch API of nested tensors")
def test_tensors_that_a_file_cannot_hold_are_named(make, message):
    with pytest.raises(UserError, match=message):
        encode_state({"w": torch.zeros(9)}, {"odd": make()}, {})


def read_whatever(content):
    """Decode, and let nothing pass but success or our own error; return the peak of Python's and numpy's memory.

    With torch alone the same has to come of it.
    """
    tracemalloc.start()
    try:
        found = outcome(content, stream.decode)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert outcome(content, alone.decode) == found
    return peak


def outcome(content, decode):
    try:
        found = read_elements(content, decode)
    except UserError as error:
        return str(error)
    return [(record, np.asarray(bits).tobytes()) for record, bits in zip(found.records, found.elements, strict=True)]


MAX_MILLISECONDS = 20_000
"""Far above what a small file takes, also on a busy machine."""
MAX_PEAK = 32 << 20
"""Far above what a small file's 512 elements per byte take, far below what an unchecked size would."""


@settings(max_examples=25, deadline=MAX_MILLISECONDS)
@given(st.data())
def test_mutated_files_raise_our_error_only(data):
    content = bytearray(small_file(class_names=("a", "b")))
    start = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 40))
        content[place : place + length] = data.draw(st.binary(max_size=40))
    if (
        data.draw(st.booleans()) and len(content) >= start + 32
    ):  # a true checksum lets the mutation through to the checks
        content = envelop(bytes(content[start:-32]))
    assert read_whatever(bytes(content)) < MAX_PEAK


@settings(max_examples=50, deadline=MAX_MILLISECONDS)
@given(st.data())
def test_mutated_headers_raise_our_error_only(data):
    """Inside the deflated header, where a mutation of the file's bytes would hardly ever get."""
    layout, sizes, rest = take_apart(small_file())
    raw = bytearray(write_layout(layout))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    sizes = [data.draw(st.sampled_from([size, 0, 1, 1 << 16])) if data.draw(st.booleans()) else size for size in sizes]
    assert read_whatever(put_together(bytes(raw), sizes, rest)) < MAX_PEAK


@settings(max_examples=15, deadline=MAX_MILLISECONDS)
@given(st.data())
def test_edited_payloads_raise_our_error_only(data):
    layout, sizes, rest = take_apart(small_file())
    edited = data.draw(st.binary(min_size=len(rest), max_size=len(rest)))
    assert read_whatever(put_together(write_layout(layout), sizes, edited)) < MAX_PEAK


def test_the_golden_file_is_written_and_read():
    """A change of these bytes is a change of the format: raise FORMAT_VERSION."""
    content = encode_state({"w": torch.tensor([0, 0.5, -0.5, 0, 0, 0.25, 0, -0.5] * 40)}, {"n": torch.tensor(3)}, {})
    layout, sizes, rest = take_apart(content)
    assert json.loads(layout.metadata) == {}
    assert [palette.cast("B").cast("f").tolist() for palette in layout.palettes if palette.itemsize == 4] == [
        [-0.5, 0, 0.25, 0.5]
    ]
    assert [(record.name, record.role, record.dtype, record.shape) for record in layout.records] == [
        ("w", Role.FIXED, "F32", (320,)), ("n", Role.REST, "I64", ())
    ]  # fmt: skip
    assert hashlib.sha256(write_layout(layout) + rest).hexdigest() == GOLDEN


GOLDEN = "aac7a68663e9056ad77816349977fddb52918c823b435cd25fa81113271786be"
