"""The judge: does another implementation give refrnn's numbers, whole and in chunks?"""

from refrnn.verify.agreement import Row, judge_case, judge_model
from refrnn.verify.check import check
from refrnn.verify.compare import Mismatch, compare
from refrnn.verify.family import FAMILY
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import First, Report, Run
from refrnn.verify.table import Table
from refrnn.verify.tolerances import TOLERANCES, Tolerance

__all__ = [
    "FAMILY",
    "PRECISIONS",
    "TOLERANCES",
    "First",
    "Mismatch",
    "Precision",
    "Report",
    "Row",
    "Run",
    "Table",
    "Tolerance",
    "check",
    "compare",
    "judge_case",
    "judge_model",
]
