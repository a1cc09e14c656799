"""`page`: a model's gate math as one HTML file, to be opened anywhere, with nothing to load."""

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from refrnn.gates import Array
from refrnn.study.data import data
from refrnn.study.target import Wanted
from refrnn.verify.whole import plain

# Nothing is asked of a network, whatever the page says.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    " base-uri 'none'; form-action 'none'"
)


def page(model: Any, inputs: Sequence[Array], target: Any = None, title: str | None = None) -> str:
    """A page on which a reader picks a layer, a step and a unit, and sees the numbers there.

    model   of `refrnn.load_model` and the like, or a recurrent layer; it is left as it is
    inputs  an array for each of the model's inputs, in their order
    target  what the output should have been; then the gradients of the mean squared error are
            shown too
    title   its heading; None for the model's name

    Of large models some rows, steps and units are shown, and the page says which. Raises
    ValueError where there is no recurrent layer that can be shown, or no step, and where the target
    does not fit.
    """
    wanted = None if target is None else Wanted(model, inputs, target)
    title = model.name if title is None else title
    return written(data(model, inputs, title, wanted), title)


def written(found: dict[str, Any], title: str) -> str:
    """The page of what `data` found."""
    files = resources.files("refrnn.study")
    style, script, body = (
        (files / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    numbers = json.dumps(plain(found), allow_nan=False, separators=(",", ":"))
    numbers = numbers.replace("</", "<\\/")  # a name may hold what would end the script
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}: gate math</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{escape(title)}</h1><p id="about"></p></header>\n{body}'
        f'<script type="application/json" id="data">{numbers}</script>\n'
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )
