"""Imports point one way, files are short, heavy libraries stay in their files, and starting costs next to nothing."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import forethought

PACKAGE = Path(forethought.__file__).parent

# Lower may not import higher. A folder counts as one noun.
ORDER = [
    "_version",
    "errors",
    "core",
    "questions",
    "graders",
    "models",
    "servers",
    "runs",
    "engines",
    "allocators",
    "evaluation",
    "predictors",
    "control",
    "cluster",
    "report",
    "gateway",
    "integrations",
    "studies",
    "commands",
    "testing",
    "__main__",
    "__init__",
]
RANK = {name: rank for rank, name in enumerate(ORDER)}

LONG = 400  # lines of a file that holds too much

HEAVY = {
    "torch": {
        "engines/attention.py",
        "engines/batch.py",
        "engines/decoding.py",
        "engines/drawing.py",
        "engines/transformers.py",
        "engines/vllm/connector.py",
        "models/gguf.py",
        "predictors/parts/adapter.py",
    },
    "transformers": {
        "engines/transformers.py",
        "engines/decoding.py",
        "engines/attention.py",
        "engines/server/chat.py",
        "models/gguf.py",
        "models/here.py",
        "predictors/parts/adapter.py",
    },
    "peft": {"predictors/parts/adapter.py"},
    "aiohttp": {"servers/client.py", "commands/serve.py"},
    "uvicorn": {"gateway/hosts/upstream/server.py", "commands/serve.py"},
    "uvloop": {"commands/serve.py", "gateway/scripted/__main__.py"},
    "litellm": {"gateway/hosts/litellm.py"},
    "fastapi": {"gateway/hosts/litellm.py"},
    "httptools": {
        "commands/serve.py",
        "gateway/hosts/upstream/connection.py",
        "gateway/scripted/load.py",
        "gateway/scripted/server.py",
    },
    "vllm": {
        "engines/vllm/connector.py",
        "engines/vllm/engine.py",
        "engines/vllm/states.py",
        "engines/vllm/starting.py",
        "gateway/hosts/vllm/host.py",
    },
    "matplotlib": {
        "report/figures.py",
        "report/plots.py",
        "report/comparison_plots.py",
        "report/draws_plots.py",
        "studies/paper/plots.py",
        "studies/layers/plots.py",
    },
    "jinja2": {"report/html.py"},
    "opentelemetry": {"gateway/tracing.py"},
    "prometheus_client": {"gateway/metrics.py", "gateway/totals.py"},
    "sympy": {
        "graders/factors.py",
        "graders/meanings.py",
        "graders/reading.py",
        "graders/sameness.py",
    },
    "ray": {"cluster/ray_host.py"},
    "redis": {"gateway/ledger/redis.py"},
    "huggingface_hub": {"models/locating.py", "models/gguf.py"},
    "inspect_ai": {"runs/importing/inspect_logs.py"},
}


def _modules() -> Iterator[Path]:
    yield from sorted(PACKAGE.rglob("*.py"))


@cache
def _imports(path: Path) -> frozenset[str]:
    """Absolute names of everything a file imports at run time, wherever the import stands."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    typing_only = {
        child
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    parts = ("forethought", *path.relative_to(PACKAGE).parts[:-1])
    found: set[str] = set()
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else ())))
            found.update((module, *(f"{module}.{alias.name}" for alias in node.names)))
    return frozenset(found)


def _noun(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_its_place_in_the_order() -> None:
    assert {_noun(path) for path in _modules()} == set(RANK)


def test_the_document_shows_the_same_order() -> None:
    page = PACKAGE.parents[1] / "docs" / "architecture.md"
    if not page.is_file():
        pytest.skip("the documents are not here")
    table = page.read_text("utf-8").partition("| package |")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [name for name in ORDER if name[0] != "_"]


def test_no_file_is_long() -> None:
    num_lines = {path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines()) for path in _modules()}
    too_long = {file: number for file, number in num_lines.items() if number >= LONG}
    assert not too_long, f"files of {LONG} lines or more: {too_long}; give their second topic a file of its own"


@pytest.mark.slow
def test_shares_are_shown_by_percent() -> None:
    """`:.0%` shows 99.6% as 100%, and 0.4% as 0%."""
    rounding = re.compile(r":[<>]?\d*\.\d%|%%\)")
    assert not [path for path in _modules() if rounding.search(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", list(_modules()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = _noun(path)
    for name in sorted(_imports(path)):
        parts = name.split(".")
        if parts[0] == "forethought" and len(parts) > 1 and parts[1] in RANK and parts[1] != own:
            assert RANK[parts[1]] < RANK[own], f"{own} imports {name}"


@pytest.mark.slow
@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_in_their_files(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in _modules()
        if any(name.split(".")[0] == library for name in _imports(path))
    }
    assert users <= HEAVY[library]


def _loaded_by(code: str) -> set[str]:
    script = f"import json, sys; {code}; json.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


ASKING = "from forethought.commands import _exit_code; _exit_code"
LIGHT_START = {
    "import forethought": "import forethought",
    "forethought --help": f"{ASKING}(['--help'])",
    "forethought import --help": f"{ASKING}(['import', '--help'])",
    "forethought profile --help": f"{ASKING}(['profile', '--help'])",
    "forethought doctor --help": f"{ASKING}(['doctor', '--help'])",
    "forethought layers --help": f"{ASKING}(['layers', '--help'])",
    "forethought serve --help": f"{ASKING}(['serve', '--help'])",
    "forethought bench paper --help": f"{ASKING}(['bench', 'paper', '--help'])",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", LIGHT_START.values(), ids=LIGHT_START.keys())
def test_starting_loads_no_library_that_computes(code: str) -> None:
    loaded = {name.split(".")[0] for name in _loaded_by(code)}
    assert not loaded & {*HEAVY, "numpy", "pyarrow", "rich", "safetensors", "scipy", "asyncio"}


@pytest.mark.slow
def test_the_default_engine_choice_does_not_load_engines() -> None:
    loaded = _loaded_by("from forethought.engines.opening import choose; choose('any', 'auto')")
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_public_names_are_the_ones_promised() -> None:
    assert forethought.__all__ == sorted(forethought.__all__)
    for name in forethought.__all__:
        assert getattr(forethought, name).__module__.startswith("forethought.")
    assert set(forethought.__all__) <= set(dir(forethought))


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'allocate'"):
        forethought.allocate  # noqa: B018


EXTRAS = (
    "aiohttp",
    "httptools",
    "matplotlib",
    "peft",
    "ray",
    "redis",
    "sympy",
    "torch",
    "transformers",
    "uvicorn",
    "uvloop",
)
FIRST_HOUR = (
    "profile fake q.jsonl --budgets 16,32 --traces 2 --out p",
    "train p --predictor text --out predictor",
    "evaluate p --no-plots",
    "plan predictor q.jsonl --mean-tokens 24 --out plan.json",
    "plan predictor q.jsonl --mean-tokens 24 --dry-run",
    "run predictor q.jsonl --mean-tokens 24 --out r",
    "show r",
    "ls",
)


@pytest.mark.slow
def test_the_first_hour_needs_no_extra(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(30)]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); from forethought.commands import _exit_code\n"
        f"for line in {FIRST_HOUR!r}: assert _exit_code(line.split()) == 0, line"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
