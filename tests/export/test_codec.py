import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import entropy

from pwfn.export import alone, codec
from pwfn.export.codec import Item, encode
from pwfn.export.container import read_envelope, unpack
from pwfn.export.layout import Kind, Role, read_layout, write_layout
from pwfn.export.packing import pack
from pwfn.export.stream import decode_stream, elements_of

ODD_BITS = np.array(
    [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 0xFFC12345, 0x00000001, 0x3C000000],
    dtype=np.uint32,
)
"""Both zeros, both infinities, three NaNs (one signalling), the least subnormal, 2^-7."""
TYPES = {"f": {2: "F16", 4: "F32", 8: "F64"}, "i": {1: "I8", 8: "I64"}, "b": {1: "BOOL"}}


def item(name, array, role=Role.FIXED):
    array = np.ascontiguousarray(array)
    bits = array.reshape(-1).view(f"<u{array.itemsize}")
    return Item(name, role, TYPES[array.dtype.kind][array.itemsize], array.shape, bits)


def code(**tensors):
    """Code and decode; return the records by name, the tables, and the bytes of everything but names."""
    items = [item(name, tensor) for name, tensor in tensors.items()]
    layout, stream = encode(items, "{}")
    read = read_layout(write_layout(layout))
    symbols, carried = decode_stream(read, stream.states, stream.words)
    found = elements_of(read, symbols, carried[: len(stream.stored)] + stream.stored[2 * len(stream.states) :])
    decoded = {record.name: bits for record, bits in zip(read.records, found, strict=True) if record.role != Role.PART}
    assert list(decoded) == list(tensors)
    for each in items:
        assert decoded[each.name].tobytes() == each.bits.tobytes(), each.name
    content = pack(layout, stream)
    with_torch = unpack(content, read_envelope(content), alone.decode)
    assert [bytes(bits.view(torch.uint8).tolist()) for bits in with_torch.elements] == [
        bits.tobytes() for bits in found
    ]
    num_bytes = stream.words.nbytes + len(stream.stored) + 2 * len(stream.states)
    num_bytes += sum(palette.nbytes for palette in read.palettes) + sum(map(len, read.tables))
    return {record.name: record for record in read.records}, read.tables, num_bytes


def draw_clustered(num_values, size, seed=0, skew=0.3):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(num_values).astype(np.float32)
    return values[rng.choice(num_values, size, p=rng.dirichlet(np.full(num_values, skew)))]


def bound_bytes(*tensors):
    _, counts = np.unique(np.concatenate([tensor.ravel() for tensor in tensors]), return_counts=True)
    return entropy(counts, base=2) * counts.sum() / 8


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        arrays(
            np.uint32, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), elements=st.sampled_from(ODD_BITS)
        ),
        max_size=5,
    )
)
def test_any_bits_come_back(tensors):
    code(**{f"t{i}": bits.view(np.float32) for i, bits in enumerate(tensors)})


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, st.integers(0, 60)), st.integers(1, 40))
def test_any_values_come_back(values, repeats):
    code(a=np.tile(values, (repeats, 1)), b=values)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_groups_with_scales_come_back(data):
    """Grids of any kind, with odd values strewn in: found or not, they come back."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([1, 9, 32, 64]))
    levels = rng.integers(-8, 8, (rows, columns)) * data.draw(st.sampled_from([1, 3, 0.1]))
    scales = rng.lognormal(0, data.draw(st.sampled_from([0, 1, 15])), (rows, 1))
    weights = (levels * scales).astype(np.float32)
    for _ in range(data.draw(st.integers(0, 3))):
        weights[rng.integers(rows), rng.integers(columns)] = rng.choice(ODD_BITS).view(np.float32)
    code(w=weights)


@pytest.mark.parametrize("num_values", [2, 3, 17, 200, 3000])
def test_weights_without_neighbours_are_at_the_entropy(num_values):
    weights = draw_clustered(num_values, 400_000)
    _, tables, num_bytes = code(weights=weights)
    bound = bound_bytes(weights)
    assert bound < num_bytes < 1.02 * bound + 2.5 * 1024 + 6 * num_values


def test_a_neighbour_in_the_kernel_saves_bytes():
    rng = np.random.default_rng(0)
    smooth = rng.standard_normal((4000, 1, 1)) + 0.4 * rng.standard_normal((4000, 3, 3))
    values = np.linspace(-3, 3, 16, dtype=np.float32)
    weights = values[np.abs(smooth[..., None] - values).argmin(-1)].reshape(100, 40, 3, 3)
    records, _, num_bytes = code(weights=weights)
    assert records["weights"].coding.kernel == (3, 3)
    assert num_bytes < 0.8 * bound_bytes(weights)


def test_rows_and_columns_of_different_sizes_save_bytes_where_there_is_no_neighbour():
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0, 0.5, (300, 1)) * rng.lognormal(0, 0.5, (1, 200))
    values = np.linspace(-3, 3, 16, dtype=np.float32)
    weights = values[np.abs((sizes * rng.standard_normal((300, 200)))[..., None] - values).argmin(-1)]
    records, _, num_bytes = code(linear=weights, pointwise=weights[:, ::-1, None, None], alike=rng.permuted(weights))
    kinds = {name: record.coding.kind for name, record in records.items()}
    assert kinds == {"linear": Kind.LINES, "pointwise": Kind.LINES, "alike": Kind.PALETTE}
    assert records["linear"].coding.kernel == (300, 200)
    assert num_bytes < 0.96 * bound_bytes(weights, weights, weights)


def test_tensors_that_differ_in_distribution_get_tables_of_their_own():
    values = np.linspace(-1, 1, 20, dtype=np.float32)
    rng = np.random.default_rng(0)
    low = values[rng.binomial(19, 0.3, 20_000)]
    high = values[rng.binomial(19, 0.7, 20_000)]
    records, tables, num_bytes = code(low=low, high=high, again=low[::-1])
    assert records["low"].coding.palette == records["high"].coding.palette
    assert records["low"].coding.tables == records["again"].coding.tables != records["high"].coding.tables
    assert num_bytes < 0.9 * bound_bytes(low, high, low)


def test_tensors_that_share_no_values_have_palettes_of_their_own_and_may_share_tables():
    layers = {f"layer{i}": draw_clustered(16, 20_000, skew=1e6) * np.float32(1 + i) for i in range(10)}
    records, tables, _ = code(**layers)
    assert len({record.coding.palette for record in records.values()}) == 10
    assert len(tables) == 1


def test_floats_are_taken_apart_and_shared_values_are_not():
    rng = np.random.default_rng(0)
    records, _, _ = code(
        floats=rng.standard_normal((64, 640)).astype(np.float32),
        clustered=draw_clustered(16, (64, 64), skew=9.0),
        bias=rng.standard_normal(64).astype(np.float32),
    )
    kinds = {name: record.coding.kind for name, record in records.items()}
    assert kinds == {"floats": Kind.PLANES, "clustered": Kind.PALETTE, "bias": Kind.PLANES}
    assert records["floats"].coding.planes[0] > 0
    assert records["floats"].coding.planes[3] == 0


NF4 = np.array([-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, 0, 0.0795803, 0.2461123, 0.4407098, 1], np.float32)


@pytest.mark.parametrize("group", ["channel", 32, 64, "input"])
@pytest.mark.parametrize("levels", ["int4", "int8", "zero point", "nf4"])
def test_scales_inside_a_tensor_are_found(group, levels):
    rng = np.random.default_rng(0)
    grid = {"int4": np.arange(-8, 8), "int8": np.arange(-127, 128), "zero point": np.arange(16) - 5, "nf4": NF4}[levels]
    rows, columns = {"channel": (64, 288), 32: (576, 32), 64: (288, 64), "input": (64, 288)}[group]
    symbols = grid[rng.binomial(len(grid) - 1, 0.5, (rows, columns))].astype(np.float32)
    symbols[:, 0] = np.abs(grid).max() * np.sign(grid[0])  # absmax scaling: every group reaches the largest level
    scales = rng.lognormal(-3, 1, (rows, 1)).astype(np.float32)
    weights = (symbols * scales).reshape(64, 288) if group != "input" else (symbols * scales).T
    records, _, num_bytes = code(weights=np.ascontiguousarray(weights))
    assert records["weights"].coding.kind == Kind.SCALED
    assert num_bytes < 1.1 * bound_bytes(symbols) + 4 * rows + 1000


def test_palettes_inside_a_tensor_are_found():
    rng = np.random.default_rng(0)
    palettes = rng.standard_normal((64, 16)).astype(np.float32)
    weights = np.take_along_axis(palettes, rng.integers(0, 16, (64, 600)), axis=1)
    records, _, num_bytes = code(weights=weights)
    assert records["weights"].coding.kind == Kind.GROUPED
    assert num_bytes < 64 * 600 / 2 + 64 * 16 * 4 + 1000


def test_integers_are_coded():
    rng = np.random.default_rng(0)
    records, _, num_bytes = code(
        weights=rng.binomial(40, 0.5, (100, 100)).astype(np.int8), steps=np.array(5), more=np.array(5)
    )
    assert records["weights"].coding.kind == Kind.PALETTE
    assert records["steps"].coding.palette == records["more"].coding.palette
    assert num_bytes < 0.6 * 100 * 100


def test_runs_that_repeat_are_deflated():
    rng = np.random.default_rng(0)
    row = rng.standard_normal(500).astype(np.float32)
    records, _, num_bytes = code(index=np.tile(np.arange(300), 20), rows=np.tile(row, 20))
    assert {record.coding.kind for record in records.values()} == {Kind.DEFLATED}
    assert num_bytes < 8_000


def test_encoding_is_linear_in_the_number_of_tensors():
    """Counted in calls, since seconds depend on the load."""
    import cProfile
    import pstats

    def calls(number):
        items = [item(f"t{i}", draw_clustered(16, 300, seed=i)) for i in range(number)]
        profile = cProfile.Profile()
        profile.runcall(encode, items, "{}")
        return pstats.Stats(profile).total_calls

    assert calls(400) < 5 * calls(100)


def test_a_longer_deflation_is_not_chosen():
    weights = draw_clustered(16, 20_000)
    records, *_ = code(weights=weights)
    assert records["weights"].coding.kind == Kind.PALETTE
    layout, _ = encode([item("weights", weights)], "{}", deflate_all=True)
    assert layout.records[0].coding.kind == Kind.DEFLATED


def test_wide_palettes_are_coded_in_two_digits():
    weights = draw_clustered(3000, 100_000, skew=5.0)
    records, tables, _ = code(weights=weights)
    num_high = -(-len(np.unique(weights)) // 256)
    assert len(records["weights"].coding.tables) == 1 + num_high
    assert codec.MAX_SYMBOLS == 256
