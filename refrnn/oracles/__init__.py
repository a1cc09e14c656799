"""Other implementations as functions of a case or a model, each imported only when it is asked."""


class Unavailable(Exception):
    """An oracle cannot be asked here; the message says what to install or change."""
