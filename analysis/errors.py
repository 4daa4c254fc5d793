"""The error that a reader of results can cause."""


class AnalysisError(Exception):
    """Results that cannot be read or compared; the message says where, what was found and what is allowed."""
