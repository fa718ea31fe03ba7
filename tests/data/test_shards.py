import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirework.data import ShardWriter, Tokens
from wirework.data import shards as shards_module
from wirework.data.shards import dtype_for
from wirework.errors import InputError


def write(folder: Path, ids: list[int], shard_tokens: int = 4, dtype: str = "uint16") -> Path:
    writer = ShardWriter(folder, dtype, shard_tokens)
    writer.append(np.array(ids, dtype=np.uint32))
    writer.finish(n_documents=3)
    return folder


class TestShardWriter:
    def test_layout_on_disk(self, tmp_path: Path):
        folder = write(tmp_path / "train", [1, 2, 3, 4, 256], shard_tokens=4)
        assert (folder / "shard-00000.bin").read_bytes() == bytes([1, 0, 2, 0, 3, 0, 4, 0])
        assert (folder / "shard-00001.bin").read_bytes() == bytes([0, 1])
        index = json.loads((folder / "index.json").read_text())
        sums = [shard.pop("sha256") for shard in index["shards"]]
        # sha256 of the bytes 00 01, by `printf '\0\1' | sha256sum`
        assert sums[1] == "b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2"
        assert index == {
            "format": "wirework-tokens",
            "version": 1,
            "dtype": "uint16",
            "n_tokens": 5,
            "n_documents": 3,
            "shard_tokens": 4,
            "shards": [
                {"name": "shard-00000.bin", "n_tokens": 4},
                {"name": "shard-00001.bin", "n_tokens": 1},
            ],
        }

    @settings(deadline=None, max_examples=25)
    @given(
        before=st.lists(st.integers(0, 99), max_size=12),
        lost=st.lists(st.integers(0, 99), max_size=12),
        after=st.lists(st.integers(0, 99), max_size=12),
        shard_tokens=st.integers(1, 5),
    )
    def test_a_killed_writer_is_taken_up_at_its_last_flush(
        self, tmp_path_factory, before, lost, after, shard_tokens
    ):
        base = tmp_path_factory.mktemp("split")
        killed = ShardWriter(base / "a", "uint16", shard_tokens)
        killed.append(np.array(before, dtype=np.uint32))
        kept = killed.flush()
        killed.append(np.array(lost, dtype=np.uint32))
        resumed = ShardWriter(base / "a", "uint16", shard_tokens, n_tokens=kept)
        resumed.append(np.array(after, dtype=np.uint32))
        resumed.finish(2)
        straight = ShardWriter(base / "b", "uint16", shard_tokens)
        straight.append(np.array(before + after, dtype=np.uint32))
        straight.finish(2)
        names = sorted(path.name for path in (base / "b").iterdir())
        assert sorted(path.name for path in (base / "a").iterdir()) == names
        for name in names:
            assert (base / "a" / name).read_bytes() == (base / "b" / name).read_bytes()

    def test_an_id_too_large_for_the_type_is_refused(self, tmp_path: Path):
        writer = ShardWriter(tmp_path / "train", "uint16", 4)
        with pytest.raises(InputError, match="token id 65536 does not fit uint16"):
            writer.append(np.array([65_536], dtype=np.uint32))

    def test_going_on_where_less_is_left_than_promised_is_refused(self, tmp_path: Path):
        ShardWriter(tmp_path / "train", "uint16", 4).append(np.arange(6, dtype=np.uint16))
        with pytest.raises(
            InputError, match=r"shard-00001\.bin is damaged: it should hold 6 bytes"
        ):
            ShardWriter(tmp_path / "train", "uint16", 4, n_tokens=7)

    def test_a_place_that_cannot_be_written_is_refused(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot write .*file/train: Not a directory"):
            ShardWriter(tmp_path / "file" / "train", "uint16", 4)


def test_stored_type_follows_the_vocabulary():
    assert dtype_for(65_536) == "uint16"
    assert dtype_for(65_537) == "uint32"


class TestTokens:
    @settings(deadline=None, max_examples=25)
    @given(
        parts=st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=9), max_size=6),
        shard_tokens=st.integers(1, 7),
        dtype=st.sampled_from(["uint16", "uint32"]),
        data=st.data(),
    )
    def test_what_is_written_is_read(self, tmp_path_factory, parts, shard_tokens, dtype, data):
        folder = tmp_path_factory.mktemp("split") / "train"
        writer = ShardWriter(folder, dtype, shard_tokens)
        for part in parts:
            writer.append(np.array(part, dtype=np.uint32))
        writer.finish(len(parts))
        ids = [i for part in parts for i in part]
        tokens = Tokens(folder)
        assert len(tokens) == tokens.n_tokens == len(ids)
        assert tokens.n_documents == len(parts)
        start = data.draw(st.integers(0, len(ids)))
        length = data.draw(st.integers(0, len(ids) - start))
        piece = tokens.slice(start, length)
        assert piece.dtype == dtype
        assert piece.tolist() == ids[start : start + length]

    def test_few_files_stay_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(shards_module, "OPEN_SHARDS", 3)
        tokens = Tokens(write(tmp_path / "train", list(range(40)), shard_tokens=2))
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert tokens.slice(0, 40).tolist() == list(range(40))
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3

    def test_shards_that_cannot_be_mapped_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        tokens = Tokens(write(tmp_path / "train", list(range(11)), shard_tokens=4))

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENODEV, "No such device")

        monkeypatch.setattr(np, "memmap", refuse)
        assert tokens.slice(2, 8).tolist() == list(range(2, 10))
        assert tokens.slice(10, 1).tolist() == [10]
        tokens.path.rename(tmp_path / "away")
        with pytest.raises(InputError, match=r"cannot read .*shard-00000\.bin: No such file"):
            tokens.slice(0, 1)

    def test_a_slice_outside_the_split_is_refused(self, tmp_path: Path):
        tokens = Tokens(write(tmp_path / "val", [1, 2, 3]))
        for start, length in ((-1, 1), (2, 2), (0, -1)):
            with pytest.raises(InputError, match="not inside val, which has 3"):
                tokens.slice(start, length)

    def test_a_slice_is_a_copy(self, tmp_path: Path):
        tokens = Tokens(write(tmp_path / "val", [1, 2, 3]))
        tokens.slice(0, 3)[:] = 9
        assert tokens.slice(0, 3).tolist() == [1, 2, 3]

    def test_a_flipped_bit_is_found(self, tmp_path: Path):
        folder = write(tmp_path / "train", list(range(10)))
        shard = folder / "shard-00001.bin"
        data = bytearray(shard.read_bytes())
        data[3] ^= 0x10
        shard.write_bytes(data)
        with pytest.raises(InputError, match=r"shard-00001\.bin is damaged: .*checksum; delete"):
            Tokens(folder)
        assert len(Tokens(folder, verify=False)) == 10

    def test_an_id_that_the_vocabulary_lacks_is_found(self, tmp_path: Path):
        folder = write(tmp_path / "train", [0, 1, 2, 3, 9, 5])
        assert len(Tokens(folder, vocab_size=10)) == 6
        with pytest.raises(InputError, match=r"shard-00001\.bin is damaged: it holds token id 9"):
            Tokens(folder, vocab_size=9)

    def test_a_truncated_or_missing_shard_is_found_even_unverified(self, tmp_path: Path):
        folder = write(tmp_path / "train", list(range(10)))
        shard = folder / "shard-00001.bin"
        shard.write_bytes(shard.read_bytes()[:-2])
        with pytest.raises(InputError, match="damaged: 6 bytes, its index says 8"):
            Tokens(folder, verify=False)
        shard.unlink()
        with pytest.raises(InputError, match=r"shard-00001\.bin is missing"):
            Tokens(folder, verify=False)

    def test_a_folder_without_index_is_no_split(self, tmp_path: Path):
        writer = ShardWriter(tmp_path / "train", "uint16", 4)
        writer.append(np.arange(9, dtype=np.uint16))
        writer.flush()
        with pytest.raises(InputError, match=r"cannot read .*index\.json"):
            Tokens(tmp_path / "train")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "other"}, "not an index"),
            ({"version": 2}, "version 2, this wirework reads up to 1"),
            ({"n_tokens": 11}, "counts do not fit"),
            ({"shard_tokens": 3}, "counts do not fit"),
            ({"dtype": "float32"}, "counts do not fit"),
            ({"shards": None}, "counts do not fit"),
            (
                {"shards": [{"name": "../a.bin", "n_tokens": 10}], "shard_tokens": 10},
                "counts do not",
            ),
            ({"n_tokens": 10.0}, "counts do not fit"),
        ],
    )
    def test_a_wrong_index_is_refused(self, tmp_path: Path, change: dict, message: str):
        folder = write(tmp_path / "train", list(range(10)))
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(index | change))
        with pytest.raises(InputError, match=message):
            Tokens(folder)
