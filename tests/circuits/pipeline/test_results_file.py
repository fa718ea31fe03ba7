from pathlib import Path
from types import SimpleNamespace

from wirework.circuits.pipeline.prune_all import _write
from wirework.config import PruneConfig
from wirework.files import write_record


def test_a_finished_table_of_an_earlier_version_is_left_as_it_is(tmp_path: Path) -> None:
    model, config = SimpleNamespace(fingerprint="abc"), PruneConfig()
    old = [{"task": "a", "n_edges": 9}, {"task": "b", "n_edges": 5}]
    new = [
        {"task": "a", "n_edges": 12, "n_kept_edges": 9, "sufficient": "met"},
        {"task": "b", "n_edges": 7, "n_kept_edges": 5, "sufficient": "failed"},
    ]
    path = tmp_path / "results.json"
    write_record(path, {"model": "abc", "settings": config.recorded(), "rows": old})
    before = path.read_bytes()
    _write(tmp_path, model, config, new[:1], last=False)
    _write(tmp_path, model, config, new, last=True)
    assert path.read_bytes() == before
