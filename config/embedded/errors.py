"""The one error that people see when something cannot start."""


class StartError(Exception):
    """One sentence that says what is wrong and what to do; entry points print it and exit with 1."""
