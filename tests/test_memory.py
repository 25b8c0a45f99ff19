"""Memory of `profile` and `run` does not hold what is finished: 50,000 questions stay under 600 MB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY = 500, 4500  # far apart: memory comes in steps of 10 MB and more
MOST_A_QUESTION = 9_000  # bytes: with 120 MB for the program itself, 50,000 questions take under 600 MB

DRIVER = """
import re, sys
from pathlib import Path
from forethought.commands import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
# Not ru_maxrss, which a child takes over from the process that starts it.
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


def peak_bytes(folder: Path, *args: str) -> int:
    command = [sys.executable, "-c", DRIVER, *args, "--quiet"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return int(said.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_grows_little_with_the_questions(tmp_path: Path) -> None:
    rows = [
        {"id": f"q{i:05d}", "question": f"A shop sells {i % 97} boxes of {i} pens. How many? " * 3, "answer": str(i)}
        for i in range(MANY)
    ]
    for count in (FEW, MANY):
        (tmp_path / f"q{count}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
    for number, command in enumerate((("profile", "fake"), ("run", f"p{FEW}/predictor", "--mean-tokens", "64"))):
        peaks = []
        for count in (FEW, MANY):
            out = ("--out", f"{'pr'[number]}{count}")
            traces = ("--traces", "2") if number == 0 else ()
            peaks.append(peak_bytes(tmp_path, *command[:2], f"q{count}.jsonl", *command[2:], *traces, *out))
        assert (peaks[1] - peaks[0]) / (MANY - FEW) < MOST_A_QUESTION, f"{command[0]} holds what is finished"
        if number == 0:
            train = [sys.executable, "-m", "forethought", "train", f"p{FEW}", "--predictor", "ridge"]
            subprocess.run(train, cwd=tmp_path, check=True, capture_output=True)
