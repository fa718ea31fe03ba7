"""Hooks of MkDocs: which files the documentation site is made of."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PATTERNS = (
    "*.md", "docs/*.md", "docs/*.png", "benchmarks/*.md", "tests/hostile/*.md",
    "studies/results/*/*.md", "studies/results/*/*.png", "studies/results/*.png",
    "examples/*.ipynb",
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take pages from where the repository has them, and make those of the API reference."""
    urls = config.use_directory_urls
    theme = [file for file in files if not file.src_uri.endswith((".md", ".png", ".py"))]
    pages = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, urls)
        for pattern in PATTERNS
        for path in sorted(ROOT.glob(pattern))
    ]
    reference = [
        File.generated(config, page, content=f"# {module}\n\n::: {module}\n")
        for page in listed(config.nav)
        if (module := "".join(re.findall(r"api/(.+)\.md", page)))
    ]
    return Files([*theme, *pages, *reference])


def listed(nav: Any) -> Iterator[str]:
    """Yield the pages that the navigation lists."""
    if isinstance(nav, str):
        yield nav
    elif nav is not None:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(part)
