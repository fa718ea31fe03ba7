from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from circuit_maker import make_circuit

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture
def circuit(tmp_path: Path) -> Path:
    """A circuit folder of middling size."""
    return make_circuit(tmp_path / "circuit")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium. A machine without one fails these tests rather than skip them."""
    if not CHROMIUM.exists():
        pytest.fail(f"browser tests need {CHROMIUM}: apt-get install chromium", pytrace=False)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        driven = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield driven
        driven.close()
