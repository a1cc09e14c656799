"""What a subclass of the caller's says by its __init__ and its build."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from refrnn.layers.masks import leaves

SIMPLE = str | int | float | bool | None  # what Keras writes into a config by itself


def has_table(cls: type[Any]) -> bool:
    """Whether the arguments of a class are those of the table: __init__ takes *args, **kwargs."""
    return all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in _init_of(cls))


def _init_of(cls: type[Any]) -> tuple[inspect.Parameter, ...]:
    return _parameters(cls.__init__)


@functools.cache
def _parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    """The arguments of a method, `self` left out."""
    return tuple(inspect.signature(function).parameters.values())[1:]


def signature(cls: type[Any]) -> inspect.Signature:
    if not has_table(cls):
        return inspect.Signature(_init_of(cls))
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=default)
            for kind, table in zip(kinds, (cls.ARGUMENTS, cls.KEYWORDS), strict=True)
            for name, default in table.items()
            if kind is kinds[0] or name not in cls.ARGUMENTS
        ]
    )


def arguments_of(cls: type[Any], args: Any, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """What __init__ is given, by name, defaults included; None where a config cannot hold it."""
    try:
        bound = inspect.Signature(_init_of(cls)).bind(*args, **kwargs)
    except TypeError:
        return None  # __init__ will say what is wrong
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for parameter in _init_of(cls):
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= value
        elif parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            found[parameter.name] = value
        elif value:
            return None
    return found if all(isinstance(v, SIMPLE) for v in leaves(found)) else None


def noted_build(build: Callable[..., None]) -> Callable[..., None]:
    """A build of the caller's, after which the layer is built and knows what for, as in Keras."""

    @functools.wraps(build)
    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        bound = inspect.signature(build).bind(self, *args, **kwargs)
        vars(self)["_built_for"] = dict(list(bound.arguments.items())[1:])
        self.built = True

    return noted


@functools.cache
def names_of(function: Any) -> tuple[str, ...]:
    """The names of the arguments of a method, `self` left out."""
    return tuple(parameter.name for parameter in _parameters(function))
