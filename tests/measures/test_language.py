import math

import pytest
import torch
import torch.nn.functional as F

from wirework import console, measures
from wirework.data import Prepared
from wirework.errors import InputError
from wirework.measures import fixed_windows, language, prepared_text
from wirework.model import Model


def test_perplexity_by_a_loop_over_tokens(model: Model, text: Prepared) -> None:
    found = language(model, text.val, 640)
    losses = []
    for start in [i * ((text.val.n_tokens - 1) // 32) // 20 * 32 for i in range(20)]:
        ids = torch.from_numpy(text.val.slice(start, 33).astype("int64"))
        logits = model(ids[None, :-1])[0].detach()
        losses += [float(F.cross_entropy(logits[t], ids[t + 1])) for t in range(32)]
    assert found.n_tokens == len(losses) == 640
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_no_more_is_read_than_there_is(model: Model, text: Prepared) -> None:
    windows = (text.val.n_tokens - 1) // 32
    inputs = torch.cat([inputs for inputs, _ in fixed_windows(text.val, 32, 10**9)])
    assert windows - 4096 // 32 < len(inputs) <= windows
    assert len({tuple(row) for row in inputs.tolist()}) > len(inputs) * 0.9
    with pytest.raises(InputError, match="needs more than the"):
        fixed_windows(text.val, text.val.n_tokens, 100)


def test_first_names_of_text_functions_work_and_say_their_new_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_said_once", set())
    assert measures.held_out is fixed_windows
    assert measures.text_of is prepared_text
    assert capsys.readouterr().err.splitlines() == [
        "warning: wirework.measures.held_out is called fixed_windows now",
        "warning: wirework.measures.text_of is called prepared_text now",
    ]
    with pytest.raises(AttributeError, match="no attribute 'held'"):
        measures.held  # noqa: B018
