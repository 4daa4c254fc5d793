"""Files that pwfn wrote before version 2: kept in the folder version1, byte by byte."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, load_file, save
from taken_apart import flipped

import pwfn
from pwfn.errors import UserError
from pwfn.export import load_state
from pwfn.export.contents import contents_from, read_contents

FOLDER = Path(__file__).parent / "version1"
CONTENT = (FOLDER / "small.safetensors").read_bytes()


def split(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size : -32]


def join(header, body):
    """Put a file together again, with a header of its length and a true checksum."""
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + body
    return content + hashlib.sha256(content).digest()


def with_description(**changes):
    header, body = split(CONTENT)
    description = json.loads(header["__metadata__"]["pwfn"]) | changes
    header["__metadata__"]["pwfn"] = json.dumps(description)
    return join(header, body)


def with_entry(name, **changes):
    header, body = split(CONTENT)
    header[name] |= changes
    return join(header, body)


def with_layer(index, **changes):
    header, body = split(CONTENT)
    description = json.loads(header["__metadata__"]["pwfn"])
    description["layers"][index] |= changes
    header["__metadata__"]["pwfn"] = json.dumps(description)
    return join(header, body)


def test_its_tensors_come_back():
    found, expected = load_state(FOLDER / "small.safetensors"), load_file(FOLDER / "small.expected.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    contents = read_contents(FOLDER / "small.safetensors")
    assert (contents.version, contents.coded) == (1, {"conv.weight"})


def test_its_network_is_built_with_sigmas_and_metadata():
    path = FOLDER / "digits_mlp.safetensors"
    network = pwfn.load(path)
    assert [parameter.double().abs().sum().item() for parameter in network.parameters()] == SUMS
    contents = read_contents(path)
    assert contents.metadata.class_names == ("a", "b", "c", "d")
    assert contents.metadata.metrics == {"test_top1": 0.5}
    assert {tensor.unique().item() for tensor in contents.sigmas.values()} == {0.25}


SUMS = [1141.125, 0.0, 776.375, 0.0, 35.125, 0.0]


def test_every_flip_of_a_single_bit_is_found():
    for damaged in flipped(CONTENT):
        with pytest.raises(UserError):
            contents_from(damaged)


def saved_again():
    with safe_open(FOLDER / "small.safetensors", "pt") as file:
        return save(load(CONTENT), file.metadata())


ERRORS = {
    "damaged": (CONTENT[:-1] + b"?", "the file is damaged: its bytes do not match its checksum; fetch it again"),
    "saved again": (saved_again(), "the file was saved again by another program, which moved its tensors"),
    "newer": (with_description(format_version=3), "format version 3 is unknown; this pwfn reads 1 and 2: upgrade it"),
    "wrong metadata": (with_description(layers=[{"name": 3}]), "metadata layers: name, shape and table are needed"),
    "unknown metadata": (with_description(extra=1), "metadata extra is unknown"),
    "negative shape": (with_layer(0, shape=[-1]), "layers: the shape or table of 'conv.weight' is wrong"),
    "absurd shape": (with_layer(0, shape=[1 << 47] * 3), r"weights in \d+ bytes, more than 256 per byte"),
    "too few weights": (with_layer(0, shape=[70]), "stream of indices does not end where the last tensor does"),
    "no such table": (with_layer(0, table=1), "layer 'conv.weight' has table 1"),
    "stored and coded": (with_layer(1, table=0), "layer 'conv.bias' has table 0"),
    "not stored": (with_layer(0, table=None), "layer 'conv.weight' has no tensor of its shape"),
    "twice": (with_layer(1, name="conv.weight"), "a layer appears twice"),
    "offsets beyond": (with_entry("norm.weight", data_offsets=[0, 1 << 40]), "tensor '.*': F32 .* at bytes 0 to"),
    "unknown type": (with_entry("norm.weight", dtype="F9"), r"tensor 'norm.weight': F9 \[8\]"),
    "entry of another form": (with_entry("norm.weight", shape="8"), "header entry 'norm.weight'"),
    "not the rest": (join(split(CONTENT)[0], split(CONTENT)[1] + b"more"), "the tensors do not fill the file"),
    "codebook": (with_entry("pwfn.codebook", dtype="I32"), "no tensor pwfn.codebook of type F32"),
    "spans": (with_entry("pwfn.spans", shape=[2]), "a tensor of the coder has a wrong shape"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said(case):
    content, message = ERRORS[case]
    with pytest.raises(UserError, match=message):
        contents_from(content)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


def replace_somewhere(data, value):
    """Replace one value of a JSON tree."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(JSON_VALUES)
    key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    changed = value.copy()
    changed[key] = replace_somewhere(data, value[key])
    return changed


@settings(max_examples=25, deadline=20_000)
@given(st.data(), st.booleans())
def test_edited_headers_raise_our_error_only(data, inside):
    header, body = split(CONTENT)
    if inside:
        description = replace_somewhere(data, json.loads(header["__metadata__"]["pwfn"]))
        header["__metadata__"]["pwfn"] = json.dumps(description)
    else:
        header = replace_somewhere(data, header)
    try:
        contents_from(join(header, body))
    except UserError:
        return


@settings(max_examples=25, deadline=20_000)
@given(st.data())
def test_mutated_files_raise_our_error_only(data):
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()) and len(content) >= 32:
        content[-32:] = hashlib.sha256(content[:-32]).digest()
    try:
        contents_from(bytes(content))
    except UserError:
        return
