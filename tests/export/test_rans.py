import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pwfn.export.rans import (
    Decoder,
    Encoder,
    SymbolTables,
    frequencies,
    pack_states,
    quantize_counts,
    unpack_states,
)
from pwfn.export.rules import LOWEST, MAX_LEVEL, MAX_SYMBOLS, TOTAL

TABLES = np.arange(4)


def code(tables, batches, num_lanes, carried=None):
    """Code batches and decode them again; return the states, the words, the symbols and the carried bytes."""
    found = SymbolTables(tables)
    encoder = Encoder(found, np.zeros(2 * num_lanes, np.uint8) if carried is None else carried)
    for symbols, table in reversed(batches):
        encoder.push(symbols, TABLES, table)
    states, words = encoder.finish()
    decoder = Decoder(found, states, words)
    decoded = [np.empty_like(symbols) for symbols, _ in batches]
    for symbols, (_, table) in zip(decoded, batches, strict=True):
        decoder.pull(symbols, TABLES, table)
    return states, words, decoded, decoder.finish()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=MAX_SYMBOLS).filter(any))
def test_frequencies_sum_to_the_total_and_are_zero_where_nothing_was_counted(counts):
    (found,) = frequencies([quantize_counts(np.array(counts))])
    assert found.sum() == TOTAL
    assert np.array_equal(np.flatnonzero(found), np.flatnonzero(counts))


def test_frequencies_are_close_to_the_counts():
    counts = np.array([1000, 500, 250, 125, 60])
    assert np.abs(frequencies([quantize_counts(counts)])[0, : len(counts)] / TOTAL - counts / counts.sum()).max() < 0.03


@pytest.mark.parametrize("table", [[], [0, 0, 0], [1] * (MAX_SYMBOLS + 1), [MAX_LEVEL + 1]])
def test_a_table_without_frequencies_is_refused(table):
    with pytest.raises(ValueError, match=f"a table of {len(table)} entries"):
        frequencies([bytes(table)])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_what_is_coded_comes_back(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    num_lanes = data.draw(st.integers(1, 40))
    lengths = data.draw(st.lists(st.integers(1, MAX_SYMBOLS), min_size=1, max_size=4))
    tables = [quantize_counts(rng.integers(1, 1 << rng.integers(1, 30), length)) for length in lengths]
    batches = []
    for size in data.draw(st.lists(st.integers(0, 3000), max_size=4)):
        table = rng.integers(0, len(tables), size)
        symbols = (rng.random(size) * np.array(lengths)[table]).astype(np.uint8)
        batches.append((symbols, table))
    carried = rng.integers(0, 256, 2 * num_lanes).astype(np.uint8)
    states, words, decoded, returned = code(tables, batches, num_lanes, carried)
    assert all(np.array_equal(found, symbols) for found, (symbols, _) in zip(decoded, batches, strict=True))
    assert np.array_equal(returned, carried)
    assert (states >= LOWEST).all()
    packed = pack_states(states)
    unpacked, size = unpack_states(packed + b"more", num_lanes)
    assert np.array_equal(unpacked, states)
    assert size == len(packed)


@pytest.mark.parametrize("num_symbols", [2, 17, 200])
def test_the_stream_is_at_the_entropy(num_symbols):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(num_symbols, 0.5))
    symbols = rng.choice(num_symbols, 400_000, p=shares).astype(np.uint8)
    counts = np.bincount(symbols, minlength=num_symbols)
    states, words, *_ = code([quantize_counts(counts)], [(symbols, 0)], 256)
    used = counts[counts > 0]
    bound = -(used * np.log2(used / used.sum())).sum() / 8
    assert bound < words.nbytes + len(pack_states(states)) < 1.005 * bound + 3.5 * 256


def test_a_lane_that_carries_costs_half_a_byte():
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 16, 1 << 20).astype(np.uint8)
    carried = rng.integers(0, 256, 2 * 4096).astype(np.uint8)
    states, words, *_ = code([quantize_counts(np.ones(16))], [(symbols, 0)], 4096, carried)
    extra = words.nbytes + len(pack_states(states)) - len(carried) - len(symbols) / 2
    assert -0.2 < extra / 4096 < 0.8


def test_a_single_symbol_takes_no_words():
    states, words, *_ = code([quantize_counts(np.ones(1))], [(np.zeros(5000, np.uint8), 0)], 8)
    assert len(words) == 0
    assert (states == LOWEST).all()


def test_words_that_are_missing_or_left_over_are_refused():
    rng = np.random.default_rng(0)
    tables = SymbolTables([quantize_counts(np.ones(16))])
    symbols = rng.integers(0, 16, 999).astype(np.uint8)
    encoder = Encoder(tables, np.zeros(8, np.uint8))
    encoder.push(symbols, TABLES)
    states, words = encoder.finish()
    with pytest.raises(ValueError, match="ends before the last tensor does"):
        Decoder(tables, states, words[:-1]).pull(np.empty_like(symbols), TABLES)
    decoder = Decoder(tables, states, words)
    decoder.pull(symbols[:900], TABLES)
    with pytest.raises(ValueError, match="does not end where the last tensor does"):
        decoder.finish()


def test_the_bytes_are_golden():
    """A change of these bytes is a change of the format: raise FORMAT_VERSION."""
    symbols = np.array([0, 1, 2, 0, 0, 3, 0, 1] * 8, np.uint8)
    table = quantize_counts(np.bincount(symbols))
    states, words, *_ = code([table], [(symbols, 0)], 2, np.array([1, 2, 3, 4], np.uint8))
    assert table.tolist() == [119, 111, 103, 103]
    assert frequencies([table])[0, :4].tolist() == [2047, 1024, 512, 513]
    assert (states.tolist(), words.tolist()) == GOLDEN


GOLDEN = ([66023, 68232], [7676, 50986, 50954, 37026, 58607, 26474, 1212])
