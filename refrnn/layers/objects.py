"""The caller's own classes and functions, found by the names that configs have for them.

Nothing is looked up but what the caller gave: no name in a config is ever imported or evaluated.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from refrnn import activations

Objects = Mapping[str, Any]
_given: ContextVar[Objects] = ContextVar("custom_objects", default={})  # noqa: B039 never written


@contextmanager
def custom_object_scope(custom_objects: Objects | None) -> Iterator[None]:
    """Layers made from configs inside the block may be of these classes, with these functions.

    custom_objects  class or function by name: its own, or "package>Name" where Keras registered it
                    so; None for none

    As `keras.saving.custom_object_scope`. A class is one of refrnn's, a subclass of
    `refrnn.layers.Layer` say; its from_config is called with the config as it is stored.
    """
    for name, value in (custom_objects or {}).items():
        if not isinstance(name, str) or not callable(value):
            raise ValueError(
                f"custom_objects: {name!r} is {value!r}, expected a class or a function by its name"
            )
        if isinstance(value, type):
            _refuse_keras(name, value)
    token = _given.set({**_given.get(), **(custom_objects or {})})
    try:
        yield
    finally:
        _given.reset(token)


def _refuse_keras(name: str, kind: type) -> None:
    theirs = [k for k in kind.__mro__ if k.__module__.partition(".")[0] in ("keras", "tf_keras")]
    if theirs:
        raise ValueError(
            f"custom_objects: {name!r} is {kind!r}, a class of Keras, expected the same class"
            " written for refrnn: a subclass of refrnn.layers.Layer that computes with NumPy"
        )


def custom_class(entry: dict[str, Any]) -> Any:
    """The caller's class for a stored layer; None for Keras's own, or where there is none."""
    module, own, kind = (entry.get(key) for key in ("module", "registered_name", "class_name"))
    if str(module or "").partition(".")[0] == "keras" and not own:
        return None
    return _find(own or kind)


def custom_function(stored: Any) -> Any:
    """The caller's function for a stored activation; what is stored where there is none."""
    name = stored
    if isinstance(stored, dict) and stored.get("class_name") == "function":
        name = stored.get("config")
    if not isinstance(name, str) or name in activations.ACTIVATIONS:
        return stored
    return _find(name) or stored


def _find(name: Any) -> Any:
    """By the whole name; else one of the two may be without its package."""
    if not isinstance(name, str):
        return None
    given = _given.get()
    if name in given:
        return given[name]
    if ">" in name:
        return given.get(tail(name))
    found = [value for key, value in given.items() if ">" in key and tail(key) == name]
    return found[0] if len(found) == 1 else None


def tail(name: str) -> str:
    """package>Name -> Name."""
    return name.rpartition(">")[2]


def hint(name: Any, what: str = "class") -> str:
    """What a message says about a class or a function that is not refrnn's."""
    return f"; for a {what} of your own pass custom_objects={{{tail(str(name))!r}: the {what}}}"
