"""For users' own tests: an assertion, cases to draw, and a line in pytest's header."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refrnn.testing.assertions import BlindSpot, Mismatch, assert_matches
    from refrnn.testing.strategies import cases

__all__ = ["BlindSpot", "Mismatch", "assert_matches", "cases"]


def __getattr__(name: str) -> Any:
    """Imported where they are asked for: pytest loads this package in every run, for its header."""
    if name == "cases":
        from refrnn.testing.strategies import cases

        return cases
    if name in __all__:
        from refrnn.testing import assertions

        return getattr(assertions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
