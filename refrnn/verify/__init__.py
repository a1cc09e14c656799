"""The judge: does another implementation give refrnn's numbers, whole and in chunks?"""

from refrnn.verify.agreement import Row, judge_case, judge_model
from refrnn.verify.compare import Mismatch, compare
from refrnn.verify.family import FAMILY
from refrnn.verify.report import Report
from refrnn.verify.tolerances import TOLERANCES, Tolerance

__all__ = [
    "FAMILY",
    "TOLERANCES",
    "Mismatch",
    "Report",
    "Row",
    "Tolerance",
    "compare",
    "judge_case",
    "judge_model",
]
