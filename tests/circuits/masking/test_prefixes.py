import pytest
import torch

from wirework.circuits.masking.prefixes import Prefixes
from wirework.tasks import TokenizedPairs


def batch_of(prompts: list[list[int]], padding: int = 0) -> TokenizedPairs:
    length = max(map(len, prompts))
    tokens = torch.tensor([prompt + [padding] * (length - len(prompt)) for prompt in prompts])
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return TokenizedPairs(tokens, last, torch.zeros(len(prompts), 2, dtype=torch.int64))


def spelled(found: Prefixes, row: int) -> list[int]:
    """Return the tokens of a prefix, from the last tokens of its ancestors."""
    ancestors = found.ancestors[row, : int(found.positions[row]) + 1]
    return found.entry_tokens[found.entries[ancestors]].tolist()


def test_by_hand() -> None:
    found = Prefixes.of(batch_of([[5, 6, 7], [5, 6], [5, 7, 7], [5, 6, 7]]), positions_count=False)
    assert len(found.positions) == 5
    assert {tuple(spelled(found, row)) for row in range(5)} == {
        (5,), (5, 6), (5, 6, 7), (5, 7), (5, 7, 7),
    }  # fmt: skip
    assert found.entry_tokens.tolist() == [5, 6, 7]
    assert found.last[0] == found.last[3]
    assert found.prompt_rows[1, 2] == 0


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("positions_count", [False, True])
def test_every_prefix_is_found(padding: int, positions_count: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (40,), generator=generator).tolist()
    prompts = [torch.randint(3, (n,), generator=generator).tolist() for n in lengths]
    found = Prefixes.of(batch_of(prompts, padding), positions_count=positions_count)
    for prompt, rows, last in zip(prompts, found.prompt_rows, found.last, strict=True):
        for n in range(1, len(prompt) + 1):
            assert spelled(found, int(rows[n - 1])) == prompt[:n]
        assert last == rows[len(prompt) - 1]
    if positions_count:
        assert torch.equal(found.entry_positions[found.entries], found.positions)
        keys = set(zip(found.entry_tokens.tolist(), found.entry_positions.tolist(), strict=True))
        assert len(keys) == len(found.entry_tokens)
    else:
        assert found.entry_tokens.tolist() == [0, 1, 2]
        assert not found.entry_positions.any()


def test_prefixes_are_distinct_where_padding_is_no_token() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 7, (30,), generator=generator).tolist()
    prompts = [(1 + torch.randint(2, (n,), generator=generator)).tolist() for n in lengths]
    found = Prefixes.of(batch_of(prompts), positions_count=False)
    distinct = {tuple(prompt[:n]) for prompt in prompts for n in range(1, len(prompt) + 1)}
    assert len(found.positions) == len(distinct)
