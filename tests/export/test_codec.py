import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import entropy

from pwfn.export import codec
from pwfn.export.codec import MAX_SYMBOLS, TOTAL, decode, encode, frequencies, quantize_counts

ODD_BITS = np.array(
    [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 0xFFC12345, 0x00000001, 0x3C000000],
    dtype=np.uint32,
)
"""Both zeros, both infinities, three NaNs (one signalling), the least subnormal, 2^-7."""


def assert_round_trip(tensors):
    coded = encode(tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    decoded = decode(coded, shapes)
    assert list(decoded) == list(coded.table_of)
    for name, tensor in decoded.items():
        assert tensor.shape == tensors[name].shape
        assert tensor.tobytes() == tensors[name].tobytes()
    return coded


def draw_clustered(num_values, size, seed=0, skew=0.3):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(num_values).astype(np.float32)
    return values[rng.choice(num_values, size, p=rng.dirichlet(np.full(num_values, skew)))]


def bound_bytes(*tensors):
    _, counts = np.unique(np.concatenate([tensor.ravel() for tensor in tensors]), return_counts=True)
    return entropy(counts, base=2) * counts.sum() / 8


@settings(deadline=None)
@given(
    st.lists(
        arrays(
            np.uint32, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), elements=st.sampled_from(ODD_BITS)
        ),
        max_size=5,
    )
)
def test_any_bits_come_back(tensors):
    assert_round_trip({f"t{i}": bits.view(np.float32) for i, bits in enumerate(tensors)})


@settings(deadline=None)
@given(arrays(np.float32, st.integers(0, 60)), st.integers(1, 40))
def test_any_values_come_back(values, repeats):
    assert_round_trip({"a": np.tile(values, (repeats, 1)), "b": values})


def test_a_tensor_longer_than_a_piece_comes_back():
    weights = draw_clustered(9, codec.PIECE + 12345)
    coded = assert_round_trip({"long": weights, "short": weights[:100]})
    assert list(coded.table_of) == ["long", "short"]


@pytest.mark.parametrize("num_values", [2, 3, 17, 200, 3000])
@pytest.mark.parametrize("skew", [0.02, 0.3, 30.0])
def test_the_stream_is_at_the_entropy(num_values, skew):
    weights = draw_clustered(num_values, 400_000, skew=skew)
    coded = encode({"weights": weights})
    bound = bound_bytes(weights)
    assert bound - 1 <= coded.words.nbytes <= 1.001 * bound + 16
    assert coded.num_bytes - coded.words.nbytes == 5 * len(np.unique(weights)) + 8


def test_tensors_that_differ_in_distribution_get_tables_of_their_own():
    values = np.linspace(-1, 1, 20, dtype=np.float32)
    rng = np.random.default_rng(0)
    low = values[rng.binomial(19, 0.2, 20_000)]
    high = values[rng.binomial(19, 0.8, 20_000)]
    bias = values[[3, 4, 5]]
    coded = assert_round_trip({"low": low, "high": high, "bias": bias})
    assert coded.table_of == {"low": 1, "high": 2, "bias": 0}
    assert coded.num_bytes < 0.8 * bound_bytes(low, high, bias)


def test_tensors_alike_share_one_table():
    weights = draw_clustered(40, 60_000)
    coded = assert_round_trip({"a": weights[:30_000], "b": weights[30_000:]})
    assert coded.table_of == {"a": 0, "b": 0}
    assert len(coded.spans) == 1


def test_float_tensors_are_left_out_and_shared_ones_are_coded():
    rng = np.random.default_rng(0)
    tensors = {
        "float": rng.standard_normal((64, 64)).astype(np.float32),
        "clustered": draw_clustered(16, (64, 64), skew=9.0),
        "float_bias": rng.standard_normal(64).astype(np.float32),
    }
    coded = assert_round_trip(tensors)
    assert list(coded.table_of) == ["clustered"]
    assert len(coded.codebook) == 16


def test_a_large_float_tensor_is_left_out_and_the_most_values_that_can_be_coded_are_not():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(MAX_SYMBOLS).astype(np.float32)
    tensors = {
        "float": rng.standard_normal(1_200_000).astype(np.float32),
        "many": values[rng.integers(0, MAX_SYMBOLS, 1_200_000)],
    }
    assert list(assert_round_trip(tensors).table_of) == ["many"]


def test_a_tensor_with_too_many_values_is_left_out():
    many = np.arange(MAX_SYMBOLS + 1, dtype=np.float32)
    coded = encode({"many": np.tile(many, 3)})
    assert coded.table_of == {}
    assert coded.num_bytes == 0


def test_a_tensor_whose_values_lie_too_far_apart_in_the_codebook_is_left_out():
    first = np.arange(MAX_SYMBOLS, dtype=np.float32)
    second = first + MAX_SYMBOLS
    across = np.concatenate([first[:1000], second[-1000:]])
    tensors = {"first": np.tile(first, 4), "second": np.tile(second, 4), "across": np.tile(across, 50)}
    coded = assert_round_trip(tensors)
    assert list(coded.table_of) == ["first", "second"]


def test_codebooks_of_single_layers_cost_only_their_own_span():
    rng = np.random.default_rng(1)
    layers = {}
    for layer in range(20):
        values = rng.standard_normal(256).astype(np.float32)
        layers[f"layer{layer}"] = values[rng.integers(0, 256, 20_000)]
    coded = assert_round_trip(layers)
    assert len(coded.codebook) == 20 * 256
    assert coded.spans[:, 1].tolist() == [256] * 20
    assert coded.num_bytes < 20 * (20_000 + 256 * 5 + 8) * 1.001 + 16  # 8 bits per weight


def test_a_single_value_takes_no_words():
    coded = assert_round_trip({"zeros": np.zeros((100, 100), np.float32)})
    assert coded.words.size == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=300).filter(any))
def test_frequencies_are_positive_and_sum_to_the_total(counts):
    table = quantize_counts(np.array(counts))
    found = frequencies(table)
    assert found.min() >= 1
    assert found.sum() == TOTAL


def test_the_longest_table_does_not_overflow():
    found = frequencies(np.full(MAX_SYMBOLS, 255, np.uint8))
    assert (found.min(), found.max(), found.sum()) == (64, 64, TOTAL)


@pytest.mark.parametrize("table", [[], [0, 0, 0], [1] * (MAX_SYMBOLS + 1)])
def test_a_table_without_frequencies_is_refused(table):
    with pytest.raises(ValueError, match=f"a table of {len(table)} entries"):
        frequencies(np.array(table, np.uint8))


def test_words_left_over_are_refused():
    weights = draw_clustered(9, 1000)
    coded = encode({"weights": weights})
    with pytest.raises(ValueError, match="does not end where the last tensor does"):
        decode(coded, {"weights": [900]})


def test_the_bytes_are_golden():
    """A change of these bytes is a change of the format: raise FORMAT_VERSION."""
    tensor = np.array([0, 0.5, -0.5, 0, 0, 0.25, 0, -0.5] * 4, np.float32)
    coded = encode({"tensor": tensor})
    assert coded.codebook.tolist() == [-0.5, 0.0, 0.25, 0.5]
    assert coded.tables.tolist() == [239, 255, 223, 223]
    assert coded.spans.tolist() == [[0, 4]]
    assert coded.words.tolist() == [3843358638, 3518542757, 2882]
