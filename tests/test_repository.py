"""The files around the code agree with it."""

import ast
import re
import tomllib
from pathlib import Path

import yaml

import wirework

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def yaml_of(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "wirework.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", wirework.__version__)


def test_changelog_and_citation_name_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    number, _, date = headings[1].partition(" - ")
    citation = yaml_of("CITATION.cff")
    assert number == f"[{wirework.__version__}]"
    assert (citation["version"], str(citation["date-released"])) == (wirework.__version__, date)


def test_every_tool_of_the_developer_is_pinned() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    extras = PROJECT["project"]["optional-dependencies"]
    names = [re.split(r"[\[>=]", wanted)[0].lower() for wanted in extras["dev"]]
    assert [name for name in names if f"\n{name}==" not in pinned] == []


def test_hosted_ci_runs_the_same_script_on_every_python() -> None:
    job = yaml_of(".github/workflows/ci.yml")["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert {"run": ".ci/run"} in job["steps"]


def test_pre_commit_runs_what_make_runs() -> None:
    (local,) = yaml_of(".pre-commit-config.yaml")["repos"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in local["hooks"]:
        tool = Path(hook["entry"].split()[0]).name
        assert f"$(BIN)/{tool}" in makefile


def test_the_citation_names_no_person_as_author() -> None:
    citation = yaml_of("CITATION.cff")
    assert citation["authors"] == [{"name": "The wirework authors"}]
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_site_lists_every_page_and_every_public_package() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= listed
    source = ROOT / "src" / "wirework"
    public = {
        init.parent.name
        for init in source.glob("*/__init__.py")
        if "__all__ = [" in init.read_text(encoding="utf-8")
    } - {"commands"}
    assert {f"api/wirework.{name}.md" for name in public} <= listed


def test_a_conftest_of_a_folder_only_imports() -> None:
    """mypy does not check these modules: several have one name."""
    for path in (ROOT / "tests").glob("*/**/conftest.py"):
        parts = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        assert not [part for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)], (
            path
        )


def test_no_line_of_a_markdown_file_is_over_180_characters() -> None:
    """`results.md` and `table.md` are left out: commands wrote them."""
    folders = (".github", "benchmarks", "docs", "examples", "studies", "tests")
    pages = list(ROOT.glob("*.md"))
    for folder in folders:
        pages += (ROOT / folder).rglob("*.md")
    long = [
        f"{page.relative_to(ROOT)}:{number} has {len(line)} characters"
        for page in sorted(pages)
        if page.name not in {"results.md", "table.md"}
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 180
    ]
    assert long == []
