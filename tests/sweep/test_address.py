"""An address where no Ray cluster answers is said in one line, soon."""

import socket
import subprocess
import sys
import time

import pytest

from pwfn.errors import UserError
from pwfn.sweep.address import check_address


def refusal(address: str) -> str:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        check_address(address)
    assert time.monotonic() - began < 30
    assert str(caught.value).startswith(f"--address {address}: ")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://127.0.0.1:10001", "cannot run through Ray's client"),
        ("10.0.0.1", "write auto, or HOST:PORT"),
        ("head:port", "write auto, or HOST:PORT"),
        ("head:99999", "write auto, or HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there: "),
        ("no-such-host.invalid:6379", "nothing answers there: "),
    ],
)
def test_an_address_that_cannot_be_one(address, expected):
    assert expected in refusal(address)


@pytest.mark.slow
def test_a_server_that_is_no_cluster_and_says_nothing(tmp_path):
    """In a process of its own, in which Ray's waiting thread is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", f"from pwfn.sweep.address import check_address; check_address({address!r})"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert time.monotonic() - began < 60  # it imports Ray, too
    assert (
        done.stderr.splitlines()[-1]
        == f"pwfn.errors.UserError: --address {address}: no Ray cluster answers within 14 s"
    )
    assert "rpc_client" not in done.stderr
