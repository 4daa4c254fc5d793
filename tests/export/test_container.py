import hashlib
import json
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from pwfn.errors import UserError
from pwfn.export import encode_state
from pwfn.export.container import CHECKSUM, DTYPES, unpack
from pwfn.export.network import decode_sigmas, decode_state


def small_state():
    rng = torch.Generator().manual_seed(0)
    values = torch.tensor([-0.5, 0.0, 0.25, 0.75])
    fixed = {
        "conv.weight": values[torch.randint(4, (8, 3, 3), generator=rng)],
        "conv.bias": torch.randn(8, generator=rng),
    }
    rest = {"norm.weight": torch.randn(8, generator=rng), "norm.steps": torch.tensor(3)}
    return fixed, rest


def small_file(**model):
    return encode_state(*small_state(), model)


def split(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size : -32]


def join(header, body):
    """Put a file together again, with a header of its length and a true checksum."""
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + body
    return content + hashlib.sha256(content).digest()


def with_description(**changes):
    header, body = split(small_file())
    description = json.loads(header["__metadata__"]["pwfn"]) | changes
    header["__metadata__"]["pwfn"] = json.dumps(description)
    return join(header, body)


def with_entry(name, **changes):
    header, body = split(small_file())
    header[name] |= changes
    return join(header, body)


def with_table(index, **changes):
    header, body = split(small_file())
    description = json.loads(header["__metadata__"]["pwfn"])
    description["layers"][index] |= changes
    header["__metadata__"]["pwfn"] = json.dumps(description)
    return join(header, body)


def test_taking_a_file_apart_and_together_keeps_its_contents():
    contents = unpack(join(*split(small_file())))
    fixed, rest = small_state()
    for name, tensor in decode_state(contents).items():
        assert torch.equal(tensor, (fixed | rest)[name])


def test_the_same_contents_give_the_same_bytes():
    assert small_file() == small_file()


def test_layers_without_sharing_are_stored_as_they_are():
    contents = unpack(small_file())
    assert {layer.name: layer.table for layer in contents.description.layers} == {"conv.weight": 0, "conv.bias": None}


def test_safetensors_reads_the_untouched_tensors(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(small_file(metrics={"test_top1": 0.5}))
    _, rest = small_state()
    tensors = load_safetensors(path.read_bytes())
    assert torch.equal(tensors["norm.weight"], rest["norm.weight"])
    assert tensors["pwfn.codebook"].tolist() == [-0.5, 0.0, 0.25, 0.75]
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["pwfn"])["model"]["metrics"] == {"test_top1": 0.5}


def test_every_element_type_comes_back():
    rest = {name: torch.tensor([[0, 1], [1, 0]]).to(dtype) for name, dtype in DTYPES.items()}
    found = decode_state(unpack(encode_state({"w": torch.zeros(4, 4)}, rest, {})))
    for name, tensor in rest.items():
        assert torch.equal(found[name].double(), tensor.double())


def test_metrics_that_are_not_finite_become_null():
    content = small_file(metrics={"test_top1": float("nan"), "epochs": 3, "name": "a"})
    assert unpack(content).description.model.metrics == {"test_top1": None, "epochs": 3, "name": "a"}


def test_a_network_of_one_value_still_has_room_for_its_weights():
    content = encode_state({"w": torch.zeros(2000, 2000)}, {}, {})
    assert 2000 * 2000 / 256 <= len(content) < 17_000
    assert torch.equal(decode_state(unpack(content))["w"], torch.zeros(2000, 2000))


def test_sigmas_of_one_value_have_room_too():
    weights, sigmas = {"w": torch.zeros(2000, 2000)}, {"w": torch.ones(2000, 2000)}
    contents = unpack(encode_state(weights, {}, {}, sigmas=sigmas))
    assert torch.equal(decode_sigmas(contents)["w"], sigmas["w"])


def test_every_flip_of_a_single_bit_is_found():
    content = small_file()
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(UserError):
                unpack(bytes(damaged))


def test_every_truncation_is_found():
    content = small_file()
    for length in range(len(content)):
        with pytest.raises(UserError):
            unpack(content[:length])


ERRORS = {
    "empty": (b"", "not a whole pwfn file: 0 bytes, too few for a header of 0; was it truncated"),
    "text": (b"hello world, this is no model" * 9, r"not a whole pwfn file: 261 bytes, too few for a header of \d{19}"),
    "foreign safetensors": (save_safetensors({"w": torch.zeros(99)}), "not a pwfn file: it has no checksum"),
    "damaged": (small_file()[:-1] + b"?", "the file is damaged: its bytes do not match its checksum; fetch it again"),
    "not JSON": (join("", b"")[:8] + b'{"' + hashlib.sha256(join("", b"")[:8] + b'{"').digest(), "header is not JSON"),
    "deep JSON": (
        (b := (200_000).to_bytes(8, "little") + b"[" * 200_000) + hashlib.sha256(b).digest(),
        "not a valid pwfn file: the header is not JSON",
    ),
    "a list": (join([1], b""), "not a valid pwfn file: the header has no __metadata__"),
    "no metadata": (join({"w": {}}, b""), "not a valid pwfn file: the header has no __metadata__"),
    "metadata of others": (join({"__metadata__": {"format": "pt"}}, b""), "format version None is unknown"),
    "newer": (with_description(format_version=2), "format version 2 is unknown; this pwfn reads 1: upgrade it"),
    "metadata not JSON": (join({"__metadata__": {"pwfn": "{"}}, b""), "the metadata is not JSON"),
    "wrong metadata": (with_description(layers=[{"name": 3}]), "not a valid pwfn file: metadata layers.0.name: Input"),
    "unknown metadata": (with_description(extra=1), "metadata extra: Extra inputs are not permitted"),
    "negative shape": (with_table(0, shape=[-1]), "metadata layers.0.shape.0: Input should be greater than or equal"),
    "absurd shape": (with_table(0, shape=[1 << 47] * 3), r"weights in \d+ bytes, more than 256 per byte"),
    "too many weights": (with_table(0, shape=[1 << 20]), r"1048584 weights in \d+ bytes, more than 256 per byte"),
    "too few weights": (with_table(0, shape=[70]), "stream of indices does not end where the last tensor does"),
    "no such table": (with_table(0, table=1), "layer 'conv.weight' has table 1"),
    "stored and coded": (with_table(1, table=0), "layer 'conv.bias' has table 0"),
    "not stored": (with_table(0, table=None), "layer 'conv.weight' has no tensor of its shape"),
    "stored otherwise": (with_table(1, shape=[4, 2]), "layer 'conv.bias' has no tensor of its shape"),
    "twice": (with_table(1, name="conv.weight"), "a layer appears twice"),
    "offsets beyond": (with_entry("norm.weight", data_offsets=[0, 1 << 40]), "tensor '.*': F32 .* at bytes 0 to"),
    "huge tensor": (with_entry("norm.weight", shape=[1 << 40, 1 << 40]), r"tensor 'norm.weight': F32 \[1099511627776"),
    "unknown type": (with_entry("norm.weight", dtype="F8"), r"tensor 'norm.weight': F8 \[8\]"),
    "entry of another form": (with_entry("norm.weight", shape="8"), "header entry 'norm.weight'"),
    "not the rest": (
        join(split(small_file())[0], split(small_file())[1] + b"more"),
        "the tensors do not fill the file",
    ),
    "no checksum": (with_entry(CHECKSUM, shape=[4, 8]), "the tensors do not fill the file"),
    "codebook": (with_entry("pwfn.codebook", dtype="I32"), "no tensor pwfn.codebook of type F32"),
    "spans": (with_entry("pwfn.spans", shape=[2]), "a tensor of the coder has a wrong shape"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said(case):
    content, message = ERRORS[case]
    with pytest.raises(UserError, match=message):
        decode_state(unpack(content))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pwfn.spans", [3, 4], "the tables do not fit the codebook"),
        ("pwfn.spans", [0, 3], "the tables do not fit the codebook"),
        ("pwfn.spans", [2**32 - 1, 4], "the tables do not fit the codebook"),
        ("pwfn.tables", [0, 0, 0, 0], "a table of 4 entries, of which 0 are not zero"),
        ("pwfn.words", None, "the stream of indices ends in a zero word"),
    ],
)
def test_wrong_coder_tensors_are_refused(name, value, message):
    header, body = split(small_file())
    start, stop = header[name]["data_offsets"]
    dtype = torch.uint8 if name == "pwfn.tables" else torch.uint32
    values = [0] * ((stop - start) // 4) if value is None else value
    replaced = body[:start] + torch.tensor(values, dtype=dtype).numpy().tobytes() + body[stop:]
    with pytest.raises(UserError, match=message):
        unpack(join(header, replaced))


def test_a_reserved_name_is_refused():
    with pytest.raises(UserError, match=r"tensor pwfn\.words: names that begin with pwfn\. are reserved"):
        encode_state({"w": torch.zeros(9)}, {"pwfn.words": torch.zeros(2)}, {})


def test_a_type_that_safetensors_lacks_is_refused():
    with pytest.raises(UserError, match=r"tensor phase is torch\.complex64, which safetensors files do not have"):
        encode_state({"w": torch.zeros(9)}, {"phase": torch.zeros(2, dtype=torch.complex64)}, {})


def read_whatever(content):
    """Decode, and let nothing pass but success or our own error; return the peak of Python's and numpy's memory."""
    tracemalloc.start()
    try:
        decode_state(unpack(content))
    except UserError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


MAX_MILLISECONDS = 20_000
"""Far above what a small file takes, also on a busy machine."""
MAX_PEAK = 16 << 20
"""Far above what a small file's 256 weights per byte take, far below what an unchecked size would."""


@settings(max_examples=300, deadline=MAX_MILLISECONDS)
@given(st.data())
def test_mutated_files_raise_our_error_only(data):
    content = bytearray(small_file(class_names=["a", "b"]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 40))
        content[place : place + length] = data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()) and len(content) >= 32:  # a true checksum lets the mutation through to the checks
        content[-32:] = hashlib.sha256(content[:-32]).digest()
    assert read_whatever(bytes(content)) < MAX_PEAK


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


@settings(max_examples=300, deadline=MAX_MILLISECONDS)
@given(st.data(), st.booleans())
def test_edited_headers_raise_our_error_only(data, inside):
    header, body = split(small_file(metrics={"test_top1": 0.5}))
    if inside:
        description = replace_somewhere(data, json.loads(header["__metadata__"]["pwfn"]))
        header["__metadata__"]["pwfn"] = json.dumps(description)
    else:
        header = replace_somewhere(data, header)
    assert read_whatever(join(header, body)) < MAX_PEAK


@settings(max_examples=200, deadline=MAX_MILLISECONDS)
@given(st.data())
def test_edited_payloads_raise_our_error_only(data):
    header, body = split(small_file())
    name = data.draw(st.sampled_from(["pwfn.codebook", "pwfn.words", "pwfn.spans", "pwfn.tables"]))
    start, stop = header[name]["data_offsets"]
    edited = body[:start] + data.draw(st.binary(min_size=stop - start, max_size=stop - start)) + body[stop:]
    assert read_whatever(join(header, edited)) < MAX_PEAK
