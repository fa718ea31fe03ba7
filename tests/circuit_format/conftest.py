import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "view"))

from circuit_maker import make_circuit


@pytest.fixture
def circuit(tmp_path: Path) -> Path:
    """A circuit folder of middling size."""
    return make_circuit(tmp_path / "circuit")
