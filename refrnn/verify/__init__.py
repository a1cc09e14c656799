"""The judge: is another implementation right, and if not, where and why?"""

from refrnn.verify.agreement import Row, judge_case, judge_layer, judge_model
from refrnn.verify.audit import Audit, Finding, audit_stream
from refrnn.verify.check import check
from refrnn.verify.compare import Mismatch, compare
from refrnn.verify.explain import Cause, Explanation, explain
from refrnn.verify.family import FAMILY
from refrnn.verify.grade import Grade, grade, grade_file, grade_vectors
from refrnn.verify.mutants import MUTANTS, Mutant
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import First, Report, Run
from refrnn.verify.table import Table
from refrnn.verify.tolerances import TOLERANCES, Tolerance

__all__ = [
    "FAMILY",
    "MUTANTS",
    "PRECISIONS",
    "TOLERANCES",
    "Audit",
    "Cause",
    "Explanation",
    "Finding",
    "First",
    "Grade",
    "Mismatch",
    "Mutant",
    "Precision",
    "Report",
    "Row",
    "Run",
    "Table",
    "Tolerance",
    "audit_stream",
    "check",
    "compare",
    "explain",
    "grade",
    "grade_file",
    "grade_vectors",
    "judge_case",
    "judge_layer",
    "judge_model",
]
