"""The methods that a configuration may name are those that can run."""

from typing import get_args

from pwfn.config import MethodConfig
from pwfn.methods import METHODS


def test_every_method_that_a_configuration_may_name_can_run():
    assert {member.model_fields["name"].default for member in get_args(MethodConfig)} == set(METHODS)
