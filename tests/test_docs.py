"""What the documentation shows works, and what it points to exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_the_examples_of_extending_run() -> None:
    """In a process of their own: what they register is not for other tests."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_test_that_the_pitfalls_name_exists() -> None:
    tests = Path(__file__).parent
    text = (DOCS / "decisions" / "pitfalls.md").read_text()
    named = re.findall(r"`([a-z_/]+)\.py: (test_[a-z0-9_]+)`", text)
    assert len(named) > 20
    missing = [
        f"{file}: {name}"
        for file, name in named
        if not (tests / f"{file}.py").exists() or f"def {name}(" not in (tests / f"{file}.py").read_text()
    ]
    assert not missing


@pytest.mark.parametrize("page", ["concepts/objective.md", "concepts/stages.md", "concepts/image-formation.md"])
def test_files_that_the_concepts_name_exist(page: str) -> None:
    source = DOCS.parent / "src" / "cryohydra"
    for name in re.findall(r"`([a-z_]+/[a-z_0-9/]+\.py)`", (DOCS / page).read_text()):
        assert (source / name).exists(), name
