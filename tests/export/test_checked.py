import pytest
import torch

from pwfn.config import ModelConfig
from pwfn.errors import UserError
from pwfn.export import describe_network, encode_network, encode_state
from pwfn.export.checked import check_accuracy, whole_file, write_checked, write_checked_state
from pwfn.export.network import stored_state
from pwfn.models import build_network
from pwfn.parameters import split_parameters
from pwfn.training import Accuracy


def build(seed):
    return build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1, seed=seed)


def check(path, content, original):
    fixed = split_parameters(original).fixable
    return write_checked(path, content, original, fixed=fixed, exact=True, images=None, recorded={})


def test_a_file_that_holds_the_network_is_kept(tmp_path):
    network = build(0)
    content = encode_network(network, describe_network(network))
    checked = check(tmp_path / "model", content, network)
    assert (tmp_path / "model").read_bytes() == content
    assert checked.report.num_weights == split_parameters(network).num_fixable
    assert checked.before is checked.after is None


def test_a_file_that_holds_other_weights_is_not_kept(tmp_path):
    other = build(1)
    with pytest.raises(UserError, match=r"check failed: \S+ was not read back to the bit; no file was written"):
        check(tmp_path / "model", encode_network(other, describe_network(other)), build(0))
    assert list(tmp_path.iterdir()) == []


def test_one_bit_of_a_state_dict_is_noticed(tmp_path):
    state = stored_state(build(0))
    fixed = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    content = encode_state(fixed, {}, {})
    name = next(iter(fixed))
    changed = fixed | {name: fixed[name].clone()}
    changed[name].view(torch.int32).view(-1)[5] ^= 1
    with pytest.raises(UserError, match="was not read back to the bit"):
        write_checked_state(tmp_path / "state", content, state=changed)
    assert list(tmp_path.iterdir()) == []
    write_checked_state(tmp_path / "state", content, state=fixed)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_an_interruption_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt), whole_file(path, b"later"):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def compare(before, after, *, exact=True, recorded=None):
    check_accuracy(Accuracy(before, 1.0), Accuracy(after, 1.0), exact=exact, recorded=recorded, num_images=1000)


def test_the_block_sees_the_new_file_beside_the_old_one(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"earlier")
    with whole_file(path, b"later") as written:
        assert (written.read_bytes(), path.read_bytes()) == (b"later", b"earlier")
    assert path.read_bytes() == b"later"
    assert list(tmp_path.iterdir()) == [path]


def test_accuracy_must_be_the_same_where_nothing_was_rounded():
    compare(0.9, 0.9)
    compare(0.9, 0.9, recorded=0.905)
    with pytest.raises(UserError, match=r"top-1 accuracy 90.00% before the export, 90.10% after it; no file"):
        compare(0.9, 0.901)


def test_rounding_may_cost_a_little():
    compare(0.9, 0.895, exact=False)
    with pytest.raises(
        UserError, match=r"90.00% before the export, 88.00% after it; use --rest-dtype float32; no file"
    ):
        compare(0.9, 0.88, exact=False)


def test_accuracy_must_be_the_recorded_one():
    with pytest.raises(
        UserError, match=r"top-1 accuracy 90.00% here, 95.00% on record; is the data the same\? no file"
    ):
        compare(0.9, 0.9, recorded=0.95)
