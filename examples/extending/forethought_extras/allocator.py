"""An allocator: everyone gets the cheapest option that they may have."""

from forethought.allocators import Solution


class CheapestAllocator:
    def solve(self, problem):
        column_Q, _ = problem.ends()
        return Solution(column_Q, why_left="everyone has the cheapest option")
