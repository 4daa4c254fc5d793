"""What a reader of results can do wrong."""


class AnalysisError(Exception):
    """The results cannot be read or compared; one line that says where, what was found and what is allowed."""
