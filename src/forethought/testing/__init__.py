"""Contract tests for third-party engines, estimators, allocators and graders.

Without a test framework, each raises AssertionError with every promise that is broken:

    from forethought.testing import check_allocator, check_engine, check_estimator, check_grader

    check_engine(lambda **given: MyEngine("my-model", **given))
    check_estimator(MyEstimator)
    check_allocator(MyAllocator())
    check_grader(MyGrader(), right=[("4", "4")], wrong=[("5", "4")])

With pytest, one test per promise: subclass `EngineContract` as `TestMyEngine` and give it a fixture `subject`, and
likewise `EstimatorContract` (`make_estimator`), `AllocatorContract` (`allocator`) and `GraderContract` (`judged`).
"""

from .allocators import AllocatorContract, check_allocator
from .engines import EngineContract, check_engine
from .estimators import EstimatorContract, check_estimator
from .graders import GraderContract, Judged, check_grader
from .subjects import Subject

__all__ = [
    "AllocatorContract",
    "EngineContract",
    "EstimatorContract",
    "GraderContract",
    "Judged",
    "Subject",
    "check_allocator",
    "check_engine",
    "check_estimator",
    "check_grader",
]
