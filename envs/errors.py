"""The one exception whose message is written for the person at the keyboard."""


class UserError(ValueError):
    """Bad input. The message is one line: what is wrong (file, key or row, value) and the remedy."""
