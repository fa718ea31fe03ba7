"""The forward hook of docs/bridges.md, run as it stands there, on a GPT-2 of transformers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wirework.bridges.perturbations import adding
from wirework.interop import load_huggingface
from wirework.nn.residual_locations import location_names, location_sites

transformers = pytest.importorskip("transformers")
PAGE = Path(__file__).parents[2] / "docs" / "bridges.md"


@pytest.mark.parametrize("location", ["0.attn", "1.attn", "0.mlp", "1.mlp"])
def test_the_documented_hook_steers_a_plain_gpt2(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    config = transformers.GPT2Config(vocab_size=60, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    torch.manual_seed(0)
    plain = transformers.GPT2LMHeadModel(config).eval()
    ours = load_huggingface(plain).transformer
    node, direction = f"{location}.act_in.3", torch.randn(32)
    folder = tmp_path / "steering" / "quote"
    folder.mkdir(parents=True)
    (folder / "steering.json").write_text(
        json.dumps({"nodes": [node], "effects": [{"node": node, "location": location}]})
    )
    save_file({node: direction}, folder / "steering.safetensors")
    monkeypatch.chdir(tmp_path)
    tokens = torch.randint(60, (2, 9))
    with torch.no_grad():
        before = plain(tokens).logits
        names: dict[str, Any] = {"model": plain}
        exec(snippet, names)
        after = plain(tokens).logits
        site = location_sites(2)[location_names(2).index(location)]
        with ours.edited({site: adding(4.0 * direction)}):
            expected = ours(tokens)
    assert not torch.allclose(after, before, atol=1e-2)
    # Both sides drop the same constant for each token at most.
    assert torch.allclose(after.log_softmax(-1), expected.log_softmax(-1), atol=1e-3)
    names["handle"].remove()
