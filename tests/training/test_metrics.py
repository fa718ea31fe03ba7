import hashlib
import json
import re
from typing import Any

import pytest

from wirework.errors import DamagedError, InputError
from wirework.training.metrics import MetricsLog, read_metrics


def logged(path, position=0, steps=(1, 2, 3)):
    log = MetricsLog(path, position)
    for step in steps:
        log.write(step, "train", {"loss": 1.5}, {"seconds": 2.0})
    position = log.sync()
    log.close()
    return position


class TestMetricsLog:
    def test_lines_are_json_with_timing_apart(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl", 0)
        log.write(3, "train", {"loss": 1.5}, {"seconds": 2.0})
        log.close()
        line = {"step": 3, "kind": "train", "loss": 1.5, "timing": {"seconds": 2.0}}
        marked = {**line, "checksum": "sum"}  # only in the first line
        seal = hashlib.sha256(json.dumps(marked).encode()).hexdigest()[:16]
        assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {**marked, "sum": seal}
        assert read_metrics(tmp_path / "metrics.jsonl") == [line]

    def test_the_log_is_cut_back_to_a_position(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        log = MetricsLog(path, 0)
        log.write(1, "train", {}, {})
        position = log.sync()
        log.write(2, "train", {}, {})
        log.close()
        log = MetricsLog(path, position)
        log.write(5, "train", {}, {})
        log.close()
        assert [line["step"] for line in read_metrics(path)] == [1, 5]

    def test_a_log_shorter_than_its_checkpoint_is_warned_of(self, tmp_path, capsys):
        MetricsLog(tmp_path / "metrics.jsonl", 10).close()
        assert (
            "metrics.jsonl is 10 bytes shorter than its checkpoint says" in capsys.readouterr().err
        )

    def test_a_log_that_lost_a_part_of_a_line_goes_on_at_a_line(self, tmp_path, capsys):
        path = tmp_path / "metrics.jsonl"
        position = logged(path)
        path.write_bytes(path.read_bytes()[:-9])
        logged(path, position, steps=(4,))
        assert "bytes shorter than its checkpoint says" in capsys.readouterr().err
        assert [line["step"] for line in read_metrics(path)] == [1, 2, 4]

    def test_trackers_get_the_numbers_under_their_kind(self, tmp_path):
        class Listener:
            def __init__(self) -> None:
                self.heard: list[tuple[int, dict[str, Any]]] = []
                self.closed = False

            def log(self, step, values):
                self.heard.append((step, dict(values)))

            def close(self):
                self.closed = True

        listener = Listener()
        log = MetricsLog(tmp_path / "metrics.jsonl", 0, [listener])
        log.write(4, "eval", {"val_loss": 2.0, "dead_neurons_by_layer": [1]}, {"seconds": 1.0})
        log.close()
        assert listener.heard == [(4, {"eval/val_loss": 2.0, "eval/seconds": 1.0})]
        assert listener.closed


class TestReadMetrics:
    def test_a_line_half_written_is_not_read(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n{"step": 2')
        assert read_metrics(path) == [{"step": 1}]

    def test_what_cannot_be_read_is_named(self, tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            read_metrics(tmp_path / "absent")
        (tmp_path / "foreign").write_text("hello\n")
        with pytest.raises(InputError, match="foreign is damaged in line 1: "):
            read_metrics(tmp_path / "foreign")


def edits():
    """Return ways to alter the second of three lines, or to add one."""
    return {
        "a number": lambda lines: [lines[0], lines[1].replace(b"1.5", b"1.4"), lines[2]],
        "a time": lambda lines: [lines[0], lines[1].replace(b"2.0", b"3.0"), lines[2]],
        "a line left out": lambda lines: [lines[0], lines[2]],
        "a line twice": lambda lines: [lines[0], lines[1], lines[1], lines[2]],
        "lines in another order": lambda lines: [lines[0], lines[2], lines[1]],
        "a line added": lambda lines: [*lines, b'{"step": 4, "kind": "final", "timing": {}}\n'],
        "other line ends": lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
        "no JSON": lambda lines: [lines[0], b"{\n", lines[2]],
        "no object": lambda lines: [lines[0], b"[]\n", lines[2]],
    }


class TestChecksums:
    @pytest.mark.parametrize("edit", edits())
    def test_an_altered_line_is_named(self, tmp_path, edit):
        path = tmp_path / "metrics.jsonl"
        logged(path)
        path.write_bytes(b"".join(edits()[edit](path.read_bytes().splitlines(keepends=True))))
        said = r"metrics\.jsonl is damaged in line [1234]: "
        with pytest.raises(DamagedError, match=said):
            read_metrics(path)
        with pytest.raises(
            DamagedError, match=f"{said}.*move the file away, and --resume continues"
        ):
            MetricsLog(path, path.stat().st_size)

    def test_a_log_without_checksums_goes_on_with_them(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        old = (
            b'{"step": 1, "kind": "train", "timing": {}}\n'
            b'{"step": 2, "kind": "train", "timing": {}}\n'
        )
        path.write_bytes(old)
        logged(path, len(old), steps=(3,))
        position = path.stat().st_size
        logged(path, position, steps=(4,))
        assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
        path.write_bytes(path.read_bytes().replace(b'"step": 1', b'"step": 7'))
        with pytest.raises(DamagedError, match="line 3: it does not match its checksum"):
            read_metrics(path)

    @pytest.mark.parametrize("old", [b"", b'{"step": 0, "kind": "train", "timing": {}}\n'])
    def test_a_log_whose_checksums_were_all_taken_off_is_not_taken_for_an_older_one(
        self, tmp_path, old
    ):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(old)
        logged(path, len(old))
        first = len(old.splitlines()) + 1
        path.write_bytes(re.sub(rb', "sum": "[0-9a-f]{16}"', b"", path.read_bytes()))
        said = rf"metrics\.jsonl is damaged in line {first}: it has no checksum"
        with pytest.raises(DamagedError, match=said):
            read_metrics(path)
        with pytest.raises(DamagedError, match=said):
            MetricsLog(path, path.stat().st_size)

    def test_a_log_that_was_cut_back_to_its_start_is_marked_anew(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        logged(path)
        logged(path, 0, steps=(4, 5))
        assert [line["step"] for line in read_metrics(path)] == [4, 5]
        assert path.read_bytes().count(b'"checksum": "sum"') == 1
