"""What is released: a wheel, built from the source archive as an index's users get both, installed and used."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import forethought

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "forethought"
pytestmark = pytest.mark.slow


def run(*command: object, **given: str) -> str:
    """What a command prints; only what it is given stands before the usual places to import from."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=given.pop("cwd"),
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source: Path, out: Path, target: str) -> Path:
    pytest.importorskip("hatchling")
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", out, cwd=str(source))
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, not from the checkout."""
    scratch = tmp_path_factory.mktemp("release")
    with tarfile.open(build(ROOT, scratch / "sdist", "sdist")) as archive:
        archive.extractall(scratch, filter="data")
    return build(scratch / f"forethought-{forethought.__version__}", scratch / "wheel", "wheel")


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {path.relative_to(PACKAGE.parent).as_posix() for path in files}


def test_its_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (place,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(place).decode())
    assert (metadata["Name"], metadata["Version"]) == ("forethought", forethought.__version__)
    extras = set(metadata.get_all("Provides-Extra") or ())
    assert {"inspect", "lora", "math", "openai", "plots", "transformers", "vllm"} <= extras
    readme = metadata.get_payload()
    assert isinstance(readme, str)
    assert readme.startswith("# Forethought\n")
    assert "](docs/" not in readme  # such a link leads nowhere on an index's page


def test_it_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site)
    run(*install, wheel, cwd=str(tmp_path))
    held_out = site / "forethought" / "data" / "profiles" / "qwen2.5-coder-0.5b-gsm8k-test.parquet"
    tried = f"""
import forethought as ft
assert ft.__file__.startswith({str(site)!r}), ft.__file__
from forethought.commands import _exit_code
for line in (
    "--version",
    "plan qwen2.5-coder-0.5b {held_out} --mean-tokens 64 --quiet",
    "profile a gsm8k-demo --limit 2 --template think --engine fake --quiet",
):
    assert _exit_code(line.split()) == 0, line
"""
    said = run(sys.executable, "-c", tried, cwd=str(tmp_path), PYTHONPATH=str(site))
    assert f"forethought {forethought.__version__}" in said
    assert run(site / "bin" / "forethought", "--help", cwd=str(tmp_path), PYTHONPATH=str(site)).startswith("Usage")
