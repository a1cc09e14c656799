"""Gate math for people: traces in words and pictures, equations with their numbers, a page.

`refrnn.trace(...).summary()` and `.plot()` are the way in from Python; from a model it is
`recurrent`, which finds the layers in it, and `page`.
"""

from refrnn.study.page import page
from refrnn.study.recurrent import Seen, recurrent
from refrnn.study.terminal import show

__all__ = ["Seen", "page", "recurrent", "show"]
