"""What implementations do differently, as data: each convention is an edit of a `Scene`.

An edit changes what the implementation is supposed to have done: the weights as it reads them, its
equations, its input, its rule for the state, or the order in which its outputs are shown. Two edits
of different aspects can be applied one after the other, in the order of ASPECTS.
"""

from refrnn.verify.conventions.blind import blind
from refrnn.verify.conventions.catalogue import catalogue
from refrnn.verify.conventions.edit import ACROSS, ASPECTS, Edit, applied
from refrnn.verify.conventions.states import lost_at

__all__ = ["ACROSS", "ASPECTS", "Edit", "applied", "blind", "catalogue", "lost_at"]
