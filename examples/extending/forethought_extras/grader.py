"""A grader: right where the reference stands in the answer, as whole words."""

import re

from forethought.core.data import Grade


class IncludesGrader:
    version = "1"  # another one whenever a verdict can change: records name it

    def __init__(self, ignore_case: bool = True):  # --grader-option ignore_case=false
        self.flags = re.IGNORECASE if ignore_case else 0

    def grade(self, *, answer, reference):
        if not answer.strip() or not reference.strip():
            return Grade.UNREADABLE
        wanted = rf"(?<!\w){re.escape(reference.strip())}(?!\w)"
        return Grade.RIGHT if re.search(wanted, answer, self.flags) else Grade.WRONG
