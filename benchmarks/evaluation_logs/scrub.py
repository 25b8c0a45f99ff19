"""Prepares what `make.sh` asks, and keeps of its logs what does not say where they were made.

python scrub.py questions DEMO.jsonl            the questions, a line each
python scrub.py logs FOLDER TARGET              the logs in FOLDER, under plain names in TARGET
"""

import json
import re
import shutil
import socket
import sys
import zipfile
from pathlib import Path

NUM_QUESTIONS = 8
OF_THE_MACHINE = ("pretty_env_info", "git_hash", "upper_git_hash", "start_time", "end_time", "lm_eval_version")


def write_questions(demo: Path) -> None:
    """Prints id, question and target of the first questions."""
    for line in demo.read_text("utf-8").splitlines()[:NUM_QUESTIONS]:
        row = json.loads(line)
        target = row["answer"].rpartition("####")[2].strip().replace(",", "")
        print(json.dumps({"id": row["id"], "question": row["question"], "target": target}))


def keep_logs(folder: Path, target: Path) -> None:
    """Copies every log, and stops where one names this machine."""
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("inspect/*/*.eval"):
        shutil.copy(path, target / f"{path.parent.name}.eval")
    for path in folder.glob("inspect-json/*_gsm8k-small_*.json"):
        shutil.copy(path, target / "low.json")
    for samples in sorted(folder.glob("lm-eval/*/*/samples_*.jsonl")):
        own = target / samples.parent.parent.name
        own.mkdir(exist_ok=True)
        shutil.copy(samples, own / samples.name)
        for path in samples.parent.glob("results_*.json"):
            summary = json.loads(path.read_text("utf-8"))
            for name in OF_THE_MACHINE:
                summary.pop(name, None)
            (own / path.name).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")
    check(target)


def check(folder: Path) -> None:
    """Exits where a log holds a path, a name of this machine or of its user."""
    names = [socket.gethostname(), Path.home().name, str(Path.home()), "/tmp/", "/home/", "/usr/"]
    wrong = re.compile("|".join(rf"(?<![\w/]){re.escape(name)}" for name in names if name))
    for path in sorted(folder.rglob("*")):
        for name, text in texts(path):
            if found := wrong.search(text):
                sys.exit(f"{path} {name}: holds {text[max(0, found.start() - 60) : found.end() + 60]!r}")


def texts(path: Path) -> list[tuple[str, str]]:
    """What a log holds as text: of an archive each of its parts."""
    if path.suffix == ".eval":
        from inspect_ai.log import read_eval_log

        assert zipfile.is_zipfile(path)
        return [("", read_eval_log(str(path)).model_dump_json())]
    return [("", path.read_text("utf-8"))] if path.is_file() else []


if __name__ == "__main__":
    if sys.argv[1] == "questions":
        write_questions(Path(sys.argv[2]))
    else:
        keep_logs(Path(sys.argv[2]), Path(sys.argv[3]))
