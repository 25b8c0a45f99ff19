"""Runs the commands of a page one after the other in a fresh folder, and writes into the page what they print.

    python tools/tutorial.py docs/nightly.md docs/levels.md docs/votes.md   # needs no model
    python tools/tutorial.py docs/tutorial.md                         # a CPU server of vLLM, a few minutes
    python tools/tutorial.py --check docs/tutorial.md                 # says what differs, and writes nothing

A page is Markdown. Its ```bash blocks are typed into one bash, in order; the ```text block behind each holds what it
printed. The first block of a page sets what readers set for themselves; after it the page's stand in `STANDS` sets
what holds here (a small model, few questions), and says so. `--check` compares what lines begin with, not their
numbers: a command that fails, and output of another form, are told.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
BLOCK = re.compile(r"```bash\n(?P<command>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)
PROGRESS = re.compile(r", \d+:\d\d so far|^done in \d+:\d\d")
DONE = "--done--"
SECONDS = 1800.0  # for one block
LONGEST = 40  # lines of output that a page shows


@dataclass(frozen=True, slots=True)
class Step:
    """A block of commands on a page.

    Attributes:
        command: as it is typed.
        output: what stands behind it; None where nothing does.
        line: where it begins on the page.
    """

    command: str
    output: str | None
    line: int


def steps(text: str) -> list[Step]:
    """The blocks of a page, in order."""
    return [
        Step(found["command"], found["output"], text.count("\n", 0, found.start()) + 1)
        for found in BLOCK.finditer(text)
    ]


def with_outputs(text: str, outputs: list[str]) -> str:
    """The page with what its blocks printed now."""
    fresh = iter(outputs)

    def block(found: re.Match[str]) -> str:
        output = next(fresh)
        return f"```bash\n{found['command']}```\n" + (f"\n```text\n{output}```\n" if output else "")

    return BLOCK.sub(block, text)


def words(output: str | None) -> list[str]:
    """What its lines begin with, each once: the first three words up to the first number.

    Nothing of the machine, and no lines of progress, which a fast machine does not print.
    """
    found = []
    text = re.sub(r"^machine\n.*?\n\n", "", output or "", flags=re.DOTALL | re.MULTILINE)
    for line in text.splitlines():
        if PROGRESS.search(line):
            continue
        start = re.split(r"\d|…", line, maxsplit=1)[0]
        if name := " ".join(re.findall(r"[A-Za-z_'-]+", start)[:3]):
            found.append(name)
    return list(dict.fromkeys(found))


def differences(old: Step, output: str) -> Iterator[str]:
    """What sets a block's output apart from the one on the page."""
    before, now = words(old.output), words(output)
    for verb, names in (
        ("lacks", [name for name in before if name not in now]),
        ("has", [n for n in now if n not in before]),
    ):
        if names:
            yield f"line {old.line}: the output now {verb} {', '.join(map(repr, names))}"


class Shell:
    """One bash in a folder, as somebody sits before it: variables, jobs and the folder last from block to block."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        commands = folder.parent / "bin"
        commands.mkdir(exist_ok=True)
        python = shlex.quote(sys.executable)
        written(commands / "forethought", f'#!/bin/sh\nexec {python} -m forethought "$@"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FORETHOUGHT_")}
        self._folder = folder
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env={
                **kept,
                "PATH": os.pathsep.join([str(commands), kept["PATH"]]),
                "PYTHONPATH": os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT / "src")])),
                "COLUMNS": "110",
                **{name: value for name, value in environment.items() if name != "PYTHONPATH"},
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.typed("set -m", seconds=60)  # jobs, as a terminal has them

    def typed(self, command: str, *, seconds: float = SECONDS) -> tuple[int, str]:
        """`(exit status of the last command, what was printed)`."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # Command by command from a file, so that what a block starts in the background goes on behind it.
        block = self._folder.parent / "block.sh"
        block.write_text(command if command.endswith("\n") else f"{command}\n")
        self._bash.stdin.write(f". {shlex.quote(str(block))} </dev/null 2>&1; echo {DONE}$?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        with _limit(self._bash, seconds):
            for line in self._bash.stdout:
                before, mark, status = line.rpartition(DONE)
                if mark:
                    lines.append(before)
                    return int(status), self._shown("".join(lines))
                lines.append(line)
        raise SystemExit(f"bash ended, or took more than {seconds:.0f} s, in:\n{command}\n{''.join(lines)}")

    def _shown(self, output: str) -> str:
        """What a page shows: no path of this machine, nothing on jobs or time, and not the middle of what is long."""
        output = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", output.replace(str(self._folder), "."))
        lines = [line.rstrip() for line in output.splitlines() if not re.match(r"\[\d+\]|.* \d:\d\d so far$", line)]
        if len(lines) > LONGEST:
            left = len(lines) - LONGEST + 1
            lines = [*lines[: LONGEST - 12], f"… {left} lines left out here …", *lines[-11:]]
        return "".join(f"{line}\n" for line in lines)

    def close(self) -> None:
        """Ends it with all that it started."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        if self._bash.poll() is None:
            self._bash.stdin.write("kill $(jobs -p) 2>/dev/null; wait; exit\n")
        self._bash.stdin.close()
        try:
            self._bash.wait(60)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
        self._bash.stdout.close()


def written(path: Path, script: str) -> None:
    """A command on the path of the bash."""
    path.write_text(script)
    path.chmod(0o755)


@contextmanager
def _limit(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    from threading import Timer

    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Stand:
    """What a page is run against.

    Attributes:
        values: assignments in place of those of the page's first block.
        environment: of the bash.
        words: what the page says of it.
    """

    values: str
    environment: Mapping[str, str]
    words: str


@contextmanager
def vllm(folder: Path) -> Iterator[Stand]:
    """A model for vLLM's own server on this machine, which the page itself starts."""
    import real_servers

    python = Path(real_servers.vllm_python())
    (folder / "small-model").symlink_to(real_servers.folder())
    (folder / "questions.jsonl").write_bytes(shipped_questions(26))
    site = folder.parent / "site"  # the plug-in's entry point, beside a vLLM in whose Python forethought need not be
    made = site / f"forethought-{version('forethought')}.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: forethought\nVersion: {version('forethought')}\n")
    plug_in = "forethought.gateway.hosts.vllm.plugin:Plugin"
    (made / "entry_points.txt").write_text(f"[vllm.endpoint_plugins]\nforethought = {plug_in}\n")
    commands = folder.parent / "bin"
    commands.mkdir()
    # The `vllm` of its wheels for CPUs looks for a package of that name and ends; what `vllm serve` starts is this.
    module = f"{python} -m vllm.entrypoints.openai.api_server"
    written(commands / "vllm", f'#!/bin/sh\nshift; model=$1; shift\nexec {module} --model "$model" "$@"\n')
    asked = [python, "-c", "import vllm; print(vllm.__version__)"]
    number = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-1]
    port = real_servers.free_port()
    flags = [flag for flag in real_servers.VLLM_FLAGS if "prompt-tokens-details" not in flag]
    flags = [flag.replace("bfloat16", "float32") for flag in flags]
    values = {
        "MODEL": "small-model",
        "URL": f"http://127.0.0.1:{port}",
        "CAPS": "16,32,64",
        "N": "16",
        "TRACES": "2",
        "MEAN": "32",
    }
    lines = [f"{name}={value}" for name, value in values.items()]
    lines.append("SERVED=$MODEL")
    lines.append(f"SERVER=({' '.join(map(shlex.quote, flags))} --port {port})")
    lines.append("ASK=(--template boxed --base-url $URL --concurrency 8)")
    yield Stand(
        "\n".join(lines),
        # A busy machine may take longer for an answer than `doctor` waits.
        {**real_servers.ENVIRONMENT, "PYTHONPATH": str(site), "FORETHOUGHT_DOCTOR_TIMEOUT": "900"},
        f"Here instead {', '.join(f'{name}={value}' for name, value in values.items() if name != 'URL')}: "
        f"qwen2.5-coder-0.5b, vLLM {number} on two busy CPU cores.\n",
    )


@contextmanager
def logs(folder: Path) -> Iterator[Stand]:
    """The evaluation logs of the tests, and a toy server where a run needs one."""
    (folder / "logs").symlink_to(TESTS / "logs")
    sample = next((TESTS / "logs" / "low-1").glob("samples_*.jsonl"))
    ids = {json.loads(line)["doc"]["id"] for line in sample.read_text("utf-8").splitlines()}
    with _effort_server(levels={"low": 6, "high": 80}) as stand:  # what the logs' levels took, about
        lines = shipped_questions(None).splitlines(keepends=True)
        (folder / "questions.jsonl").write_bytes(b"".join(line for line in lines if json.loads(line)["id"] in ids))
        yield stand


@contextmanager
def levels(folder: Path) -> Iterator[Stand]:
    """The tests' toy server, which heeds effort levels, and the shipped questions."""
    (folder / "questions.jsonl").write_bytes(shipped_questions(None))
    with _effort_server() as stand:
        yield stand


@contextmanager
def votes(folder: Path) -> Iterator[Stand]:
    """The simulated model, and the shipped questions in two parts."""
    lines = shipped_questions(None).splitlines(keepends=True)
    (folder / "known.jsonl").write_bytes(b"".join(lines[:60]))
    (folder / "new.jsonl").write_bytes(b"".join(lines[60:84]))
    yield Stand(
        "MODEL=fake",
        {"FORETHOUGHT_EVALUATE_PLOTS": "false"},  # its outputs show none
        "The outputs are those of `fake`, a simulated model whose wrong answers rarely agree: votes pay more than with "
        "a real one.\n",
    )


@contextmanager
def _effort_server(**settings: Any) -> Iterator[Stand]:
    from effort_server import EffortServer
    from loopback import serving

    with serving(EffortServer(**settings)) as address:
        yield Stand(
            f"MODEL=toy\nURL={address}",
            {},
            "The outputs are those of a toy server: it heeds effort levels, and its answers are made up.\n",
        )


def shipped_questions(number: int | None) -> bytes:
    """The first of the questions that are shipped, or all, as a file of one's own."""
    lines = (ROOT / "src" / "forethought" / "data" / "gsm8k-demo.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(lines[:number])


STANDS = {"tutorial.md": vllm, "nightly.md": logs, "levels.md": levels, "votes.md": votes}


def run(page: Path, *, tell: bool = False) -> list[str]:
    """What the blocks of a page print now; raises SystemExit where a command fails."""
    sys.path[:0] = [str(TESTS), str(ROOT / "demo")]
    with tempfile.TemporaryDirectory(prefix="tutorial-") as scratch:
        folder = Path(scratch) / "here"
        folder.mkdir()
        with STANDS[page.name](folder) as stand:
            shell = Shell(folder, stand.environment)
            try:
                return list(_typed(shell, page, stand, tell=tell))
            finally:
                shell.close()


def _typed(shell: Shell, page: Path, stand: Stand, *, tell: bool) -> Iterator[str]:
    for number, step in enumerate(steps(page.read_text("utf-8"))):
        if tell:
            print(step.command, end="", flush=True)
        status, output = shell.typed(step.command)
        if number == 0:
            status, output = shell.typed(stand.values)[0], stand.words
        if tell:
            print(output, flush=True)
        if status:
            raise SystemExit(f"{page.name}, line {step.line}: exit status {status} of\n{step.command}\n{output}")
        yield output


def unparsed(page: Path) -> Iterator[str]:
    """Commands of a page whose flags or arguments `forethought` does not take; nothing is run."""
    from forethought.commands import verbs

    values = {"N": "300", "TRACES": "4", "MEAN": "64", "CAPS": "64,128", "URL": "http://127.0.0.1:8000"}
    for step in steps(page.read_text("utf-8")):
        for line in step.command.replace("\\\n", " ").splitlines():
            filled = re.sub(r'"?\$\{(\w+)\[@\]\}"?', "", line)
            filled = re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[1].lower()), filled)
            typed = shlex.split(filled, comments=True)
            if typed[:1] != ["forethought"]:
                continue
            for place, word in enumerate(typed):
                if word in ("|", "&&") or re.match(r"\d?>", word):  # a redirection
                    typed = typed[:place]
                    break
            try:
                _parsed(verbs, typed[1:])
            except click.ClickException as error:
                yield f"{page.name}, line {step.line}: {line.strip()}: {error.format_message()}"


def _parsed(group: click.Group, typed: list[str]) -> None:
    root = click.Context(group, info_name="forethought")
    command = group.get_command(root, typed[0])
    if command is None:
        raise click.UsageError(f"there is no command {typed[0]!r}")
    if isinstance(command, click.Group):
        _parsed(command, typed[1:])
    else:
        command.make_context(typed[0], list(typed[1:]), parent=root)


def main() -> int:
    """Writes the pages, or says what differs; exit code 1 where something does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found = []
    for page in options.pages:
        outputs = run(page, tell=True)
        text = page.read_text("utf-8")
        if options.check:
            pairs = zip(steps(text), outputs, strict=True)
            found += [f"{page}, {each}" for step, output in pairs for each in differences(step, output)]
        else:
            page.write_text(with_outputs(text, outputs), "utf-8")
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
