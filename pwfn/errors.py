"""The errors a user can cause; everything else is a defect of ours."""


class UserError(Exception):
    """Input that cannot be used; the message says where, what was found and what is allowed.

    Launchers print it as one line and exit with status 2; a sweep ends with it, since every further trial would
    meet the same input.
    """


class TrialError(Exception):
    """One trial cannot go on (a loss that is not finite, no memory left); the sweep goes on without it."""

    failure_class: str = "error"


class NonFiniteLossError(TrialError):
    """The training loss became NaN or infinite: the configuration diverges."""

    failure_class = "nan"
