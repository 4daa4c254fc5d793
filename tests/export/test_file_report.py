import numpy as np
import torch
from scipy.stats import entropy

from pwfn.export import encode_state
from pwfn.export.report import describe_file, format_lines, measure_file


def measure(fixed, rest=None, **options):
    content = encode_state(fixed, rest or {}, {}, **options)
    return content, measure_file(content)


def draw(*shape, seed=0):
    values = torch.tensor([0.0, 0.5, -0.5, 0.75])
    return values[torch.randint(4, shape, generator=torch.Generator().manual_seed(seed))]


def test_it_counts_what_the_file_holds():
    weights, bias, norm = draw(100, 90), torch.randn(50), torch.randn(30)
    content, report = measure({"w": weights, "b": bias}, {"n": norm})
    _, counts = np.unique(torch.cat([weights.flatten(), bias]).numpy(), return_counts=True)
    assert report.metrics.unique_values == len(counts) == 54
    assert np.isclose(report.metrics.entropy_bits, entropy(counts, base=2))
    assert (report.num_weights, report.num_coded) == (9050, 9000)
    assert 150 < report.stored_bytes <= 200
    assert 90 < report.rest_bytes <= 120
    assert 20 < report.codebook_bytes < 60
    assert report.file_bytes == len(content)
    assert 2 * 9000 / 8 * 0.99 < report.index_bytes < 2 * 9000 / 8 * 1.03
    assert report.float32_bytes > 4 * 9080
    assert 100 < report.header_bytes < 300


def test_bits_per_weight_meet_the_entropy():
    _, report = measure({"w": draw(1000, 1000)})
    assert report.metrics.entropy_bits <= report.bits_per_weight < 1.02 * report.metrics.entropy_bits


def test_the_zip_of_the_float_file_is_measured():
    _, report = measure({"w": draw(300, 300)})
    assert report.file_bytes < report.zip_bytes < report.float32_bytes / 8


def test_the_lines_say_what_was_not_coded():
    _, report = measure({"w": draw(30, 30), "b": torch.randn(40)})
    values = report.num_coded_values
    assert values == report.metrics.unique_values - 40
    lines = dict(describe_file(report))
    assert lines["not coded"] == (
        f"40 weights share too few values: stored in full; the other {report.num_coded:,} share {values}"
    )
    assert "not coded" not in dict(describe_file(measure({"w": draw(30, 30)})[1]))


def test_the_lines_say_which_zeros_are_negative():
    _, report = measure({"w": -draw(30, 30)})
    zeros = int((draw(30, 30) == 0).sum())
    assert report.metrics.unique_values == 4
    assert dict(describe_file(report))["negative zeros"] == f"{zeros} weights are -0.0, kept as a value beside 0.0"


def test_the_lines_name_every_byte():
    content, report = measure({"w": draw(30, 30), "b": torch.randn(40)}, {"n": torch.randn(7)})
    total, parts = dict(describe_file(report))["bytes"].split(": ")
    assert total == f"{len(content):,}"
    assert sum(int(part.rsplit(" ", 1)[1].replace(",", "")) for part in parts.split(", ")) == len(content)


def test_sigmas_are_counted_with_their_weights():
    weights = {"w": draw(100, 100)}
    _, without = measure(weights)
    _, report = measure(weights, sigmas={"w": torch.rand(100, 100)})
    assert without.sigma_bytes is None
    assert 30_000 < report.sigma_bytes < 40_000
    assert report.num_weights == 10_000
    assert report.bits_per_weight > 8 * 3 + 2
    assert "sigma included" in dict(describe_file(report))["bits per weight"]


def test_labels_are_aligned():
    assert format_lines([("a", "x"), ("long", "y")]) == "a     x\nlong  y"
