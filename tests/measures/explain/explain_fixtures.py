"""A model with known neurons, text for it, and a server to ask."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from language_server import LanguageServer, serving
from planted_neurons import SITE, planted, write_text

from wirework.config import ExplainConfig
from wirework.data import Prepared, Tokenizer
from wirework.model import Model


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    return planted(tokenizer)


@pytest.fixture(scope="session")
def text(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return write_text(tmp_path_factory.mktemp("tokens"), tokenizer)


@pytest.fixture
def config() -> ExplainConfig:
    return ExplainConfig(
        excerpt_tokens=16, only=tuple(f"{SITE}.{i}" for i in range(6)), explain_top=10, shown=4
    )


@pytest.fixture(scope="session")
def new_server() -> Iterator[Callable[[], LanguageServer]]:
    with serving() as renew:
        yield renew


@pytest.fixture
def server(new_server: Callable[[], LanguageServer]) -> LanguageServer:
    return new_server()


@pytest.fixture
def asking(config: ExplainConfig, server: LanguageServer, tmp_path: Path) -> ExplainConfig:
    """Settings for neuron 0 by the server."""
    settings = {"model": "tiny", "base_url": server.address, "retries": 2, "timeout": 20}
    values = {
        "explainer": "language_model", "only": (f"{SITE}.0",), "server": settings,
        "explain_excerpts": 128, "score_excerpts": 128, "score_top": 3, "score_random": 3,
    }  # fmt: skip
    return ExplainConfig.of(config.model_dump() | values)
