"""What an autoencoder is worth, against oracles; its folder; what is refused."""

import copy
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.data import Prepared, Tokenizer
from wirework.data.tokenizer import train_tokenizer
from wirework.errors import InputError
from wirework.measures import (
    evaluate_sae,
    fixed_windows,
    load_sae,
    outlier_warning,
    prepared_text,
    save_sae,
)
from wirework.measures.sae import sae_lens
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.sites import Edit

# sae-lens imports a module that transformer-lens has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")

SITE = "2.mlp.resid_delta"


@pytest.fixture(scope="module")
def learned(model: Model, text: Prepared) -> Model:
    """The model after some training, so that zeroing a site costs something."""
    transformer = copy.deepcopy(model.transformer)
    optimizer = torch.optim.Adam(transformer.parameters(), lr=0.02)
    for inputs, targets in fixed_windows(text.val, 32, 1280) * 20:
        optimizer.zero_grad()
        transformer.loss(inputs, targets).backward()
        optimizer.step()
    return Model(transformer.requires_grad_(False), model.tokenizer)


def standard(d_in: int, d_sae: int, **about: Any) -> Any:
    """Return an autoencoder of sae-lens with all weights 0."""
    lens = sae_lens()
    metadata = lens.saes.sae.SAEMetadata(**about)
    config = lens.StandardSAEConfig(
        d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False, metadata=metadata
    )
    sae = lens.StandardSAE(config)
    for weight in sae.parameters():
        weight.data.zero_()
    return sae


def identity(d_in: int, **about: Any) -> Any:
    """x = relu(x) - relu(-x)."""
    sae = standard(d_in, 2 * d_in, **about)
    both = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    sae.W_enc.data, sae.W_dec.data = both.T.contiguous(), both
    return sae


def random(d_in: int, d_sae: int) -> Any:
    sae = standard(d_in, d_sae)
    generator = torch.Generator().manual_seed(7)
    for weight in sae.parameters():
        weight.data.normal_(0, 0.3, generator=generator)
    sae.b_enc.data[:2] = -100  # never on
    return sae


class TestEvaluateSae:
    def test_the_identity_wins_everything_back(self, learned: Model, text: Prepared) -> None:
        found = evaluate_sae(learned, identity(16), text.val, site=SITE, n_tokens=640)
        assert found.ce_score == pytest.approx(1, abs=1e-5)
        assert found.ce_spliced == pytest.approx(found.ce_clean, abs=1e-5)
        assert found.explained_variance == pytest.approx(1, abs=1e-9)
        assert found.mse < 1e-10
        assert found.sae_l0 == 16  # of each pair one is on, as no entry is exactly 0
        assert found.dead_features <= 3  # one for each channel that has one sign only: a few
        assert (found.site, found.architecture, found.d_sae) == (SITE, "standard", 32)

    def test_an_autoencoder_of_zeros_wins_nothing_back(
        self, learned: Model, text: Prepared
    ) -> None:
        found = evaluate_sae(learned, standard(16, 24), text.val, site=SITE, n_tokens=640)
        assert found.ce_score == 0
        assert found.ce_spliced == found.ce_zeroed
        assert found.ce_zeroed > found.ce_clean + 0.01
        assert (found.sae_l0, found.dead_features) == (0, 24)
        assert json.loads(json.dumps(asdict(found)))["ce_score"] == 0

    def test_every_number_by_a_loop_over_tokens(self, learned: Model, text: Prepared) -> None:
        sae = random(16, 10)
        found = evaluate_sae(learned, sae, text.val, site=SITE, n_tokens=160, skip_first=3)
        rows: list[Tensor] = []
        made: list[Tensor] = []
        on: list[Tensor] = []
        losses: dict[str, list[float]] = {"clean": [], "zeroed": [], "spliced": []}
        for inputs, targets in fixed_windows(text.val, 32, 160):
            for tokens, wanted in zip(inputs, targets, strict=True):
                x = learned.run_with_cache(tokens[None], [SITE])[1][SITE][0].detach()
                features = (x @ sae.W_enc + sae.b_enc).clamp(min=0).detach()
                out = (features @ sae.W_dec + sae.b_dec).detach()
                out[:3] = x[:3]
                rows, made, on = [*rows, *x[3:]], [*made, *out[3:]], [*on, *(features[3:] > 0)]
                without = torch.cat([x[:3], torch.zeros_like(x[3:])])
                for name, value in (("clean", x), ("zeroed", without), ("spliced", out)):
                    with learned.transformer.edited({SITE: edit_to(value)}):
                        logits = learned(tokens[None])[0]
                    losses[name] += F.cross_entropy(logits, wanted, reduction="none").tolist()
        clean, zeroed, spliced = (sum(ce) / len(ce) for ce in losses.values())
        assert (found.ce_clean, found.ce_zeroed, found.ce_spliced) == pytest.approx(
            (clean, zeroed, spliced), rel=1e-5
        )
        assert found.ce_score == pytest.approx((zeroed - spliced) / (zeroed - clean), rel=1e-3)
        assert found.n_tokens == len(rows) == 5 * 29
        assert found.sae_l0 == pytest.approx(sum(int(f.sum()) for f in on) / len(on))
        assert found.dead_features == sum(not any(bool(f[i]) for f in on) for i in range(10)) >= 2
        mean = sum(row.double() for row in rows) / len(rows)
        error = sum(float((a - b).double().square().sum()) for a, b in zip(rows, made, strict=True))
        spread = sum(float((row - mean).square().sum()) for row in rows)
        assert found.mse == pytest.approx(error / (len(rows) * 16), rel=1e-5)
        assert found.explained_variance == pytest.approx(1 - error / spread, rel=1e-5)

    def test_what_is_not_a_number_is_none(
        self, model: Model, text: Prepared, tokenizer: Tokenizer
    ) -> None:
        still = Model(Transformer(model.config), tokenizer)
        for name in ("down.weight", "down.bias"):
            still.transformer.get_parameter(f"blocks.2.mlp.{name}").data.zero_()
        found = evaluate_sae(still, random(16, 10), text.val, site=SITE, n_tokens=64)
        assert found.ce_zeroed == found.ce_clean
        assert found.ce_score is None
        assert found.explained_variance is None
        for parameter in still.transformer.blocks[2].mlp.parameters():
            parameter.data.normal_(0, 30, generator=torch.Generator().manual_seed(1))
        harmful = evaluate_sae(still, identity(16), text.val, site=SITE, n_tokens=640)
        assert harmful.ce_zeroed < harmful.ce_clean
        assert harmful.ce_score is None

    def test_tokens_of_giant_norm_are_reported_apart(
        self, with_giants: tuple[Model, int], text: Prepared
    ) -> None:
        giant, token = with_giants
        sae = FirstChannel(giant.transformer.embed.weight.data[token])
        found = evaluate_sae(giant, sae, text.val, site="0.resid_in", n_tokens=640)
        tokens = torch.cat([inputs for inputs, _ in fixed_windows(text.val, 32, 640)])
        x = giant.run_with_cache(tokens, ["0.resid_in"])[1]["0.resid_in"].flatten(0, 1).detach()
        made = sae.decode(sae.encode(x))
        others = tokens.flatten() != token
        assert found.explained_variance == pytest.approx(explained(x, made), abs=1e-4)
        assert found.explained_variance is not None
        assert found.explained_variance > 0.95
        rest = found.without_outliers
        assert rest is not None
        assert rest.explained_variance == pytest.approx(
            explained(x[others], made[others]), abs=1e-4
        )
        assert rest.explained_variance is not None
        assert rest.explained_variance < 0.5
        assert rest.mse == pytest.approx(float((x - made)[others].square().mean()), rel=1e-4)
        assert rest.n_tokens == int(others.sum())
        assert found.outlier_share == pytest.approx(1 - float(others.double().mean()))
        said = outlier_warning(asdict(found))
        assert said is not None
        assert "--max-norm-multiple 10 leaves them out" in said
        assert f"explained variance {rest.explained_variance:.3g} without them" in said

    def test_tokens_left_out_by_norm_stay_as_they_are(
        self, with_giants: tuple[Model, int], text: Prepared
    ) -> None:
        giant, token = with_giants
        sae = FirstChannel(giant.transformer.embed.weight.data[token])
        where = {"site": "0.resid_in", "n_tokens": 640}
        found = evaluate_sae(giant, sae, text.val, **where)
        left_out = evaluate_sae(giant, sae, text.val, **where, max_norm_multiple=10)
        assert found.without_outliers is not None
        assert left_out.without_outliers is None
        assert outlier_warning(asdict(left_out)) is None
        for name in ("explained_variance", "mse", "sae_l0", "ce_score", "n_tokens"):
            assert getattr(left_out, name) == getattr(found.without_outliers, name)
        assert left_out.outlier_share == found.outlier_share
        tokens, targets = fixed_windows(text.val, 32, 640)[0]
        clean = giant.run_with_cache(tokens, ["0.resid_in"])[1]["0.resid_in"]
        zeroed = torch.where((tokens == token)[..., None], clean, torch.zeros(()))
        with giant.transformer.edited({"0.resid_in": lambda _: zeroed}):
            by_hand = float(giant.transformer.loss(tokens, targets))
        assert left_out.ce_zeroed == pytest.approx(by_hand, rel=1e-5)

    def test_without_tokens_of_giant_norm_nothing_is_said(
        self, learned: Model, text: Prepared
    ) -> None:
        found = evaluate_sae(learned, random(16, 10), text.val, site=SITE, n_tokens=640)
        assert (found.outlier_share, found.without_outliers) == (0.0, None)
        assert outlier_warning(asdict(found)) is None

    def test_an_autoencoder_of_something_else_is_refused(
        self, model: Model, text: Prepared, tokenizer: Tokenizer
    ) -> None:
        with pytest.raises(InputError, match="does not say which site"):
            evaluate_sae(model, identity(16), text.val)
        with pytest.raises(InputError, match=r"no site '2.mlp.rezid_delta'.*did you mean"):
            evaluate_sae(model, identity(16), text.val, site="2.mlp.rezid_delta")
        with pytest.raises(
            InputError, match=r"2.mlp.post_act is 24 wide, the autoencoder reads 16"
        ):
            evaluate_sae(model, identity(16), text.val, site="2.mlp.post_act")
        mine = identity(16, site=SITE, model_fingerprint=model.fingerprint)
        assert evaluate_sae(model, mine, text.val, n_tokens=32).site == SITE
        other = Model(Transformer(model.config, seed=9), tokenizer)
        with pytest.raises(InputError, match="was trained on another model"):
            evaluate_sae(other, mine, text.val)
        with pytest.raises(InputError, match="skip_first 32 leaves nothing of 32 tokens"):
            evaluate_sae(model, mine, text.val, skip_first=32)


def edit_to(value: Tensor) -> Edit:
    """Return the edit that replaces a site's activations."""
    return lambda _: value[None]


@pytest.fixture(scope="module")
def with_giants(learned: Model, text: Prepared) -> tuple[Model, int]:
    """A model in which one common token's embedding is a hundred times as long; and that token."""
    tokens = torch.cat([inputs.flatten() for inputs, _ in fixed_windows(text.val, 32, 640)])
    token = int(torch.bincount(tokens).argsort(descending=True)[8])
    transformer = copy.deepcopy(learned.transformer)
    transformer.embed.weight.data[token] *= 100
    return Model(transformer, learned.tokenizer), token


def explained(x: torch.Tensor, made: torch.Tensor) -> float:
    x, made = x.double(), made.double()
    return float(1 - (x - made).square().sum() / (x - x.mean(0)).square().sum())


class FirstChannel:
    """Keeps what one direction of the values holds: the direction of the giant token."""

    def __init__(self, direction: torch.Tensor) -> None:
        self.direction = direction / direction.norm()
        self.cfg = copy.deepcopy(standard(len(direction), 1).cfg)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.direction)[..., None]

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.direction


def test_text_of_another_tokeniser_is_refused(model: Model, text: Prepared) -> None:
    other = replace(text, tokenizer=train_tokenizer(["a b"], 257, ()))
    with pytest.raises(InputError, match="another tokeniser than the model's"):
        prepared_text(model, other)
    assert prepared_text(model, text) is text


class TestLoadSae:
    def test_saved_it_is_sae_lens_own(self, model: Model, text: Prepared, tmp_path: Path) -> None:
        sae = random(16, 10)
        sae.cfg.metadata.site = SITE
        quality = evaluate_sae(model, sae, text.val, n_tokens=64)
        folder = save_sae(sae, tmp_path / "sae", quality)
        x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
        for again in (sae_lens().SAE.load_from_disk(folder), load_sae(folder)):
            assert torch.equal(again.encode(x), sae.encode(x))
            assert torch.equal(again.decode(again.encode(x)), sae.decode(sae.encode(x)))
            assert evaluate_sae(model, again, text.val, n_tokens=64) == quality
        assert json.loads((folder / "quality.json").read_text()) == asdict(quality)
        modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
        assert len(set(modes.values())) == 1, modes
        save_sae(sae, folder)  # one that is there is replaced
        assert not (folder / "quality.json").exists()

    def test_damaged_and_foreign_folders_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no autoencoder at"):
            load_sae(tmp_path)
        folder = save_sae(standard(4, 8), tmp_path / "sae")
        weights = folder / "sae_weights.safetensors"
        weights.write_bytes(b"torn")
        with pytest.raises(InputError, match="does not match its checksum"):
            load_sae(folder)
        (folder / "checksums.json").unlink()
        (folder / "settings.yaml").write_text("")
        with pytest.raises(InputError, match=r"cannot read .*checksums\.json"):
            load_sae(folder)
        (folder / "settings.yaml").unlink()
        with pytest.raises(InputError, match=r"sae_weights.safetensors is damaged"):
            load_sae(folder)
        folder = save_sae(standard(4, 8), tmp_path / "other")
        (folder / "checksums.json").unlink()
        for config in ("{}", '{"architecture": "none", "d_in": 1, "d_sae": 1}', "[", "[]"):
            (folder / "cfg.json").write_text(config)
            with pytest.raises(InputError, match="is no autoencoder that sae-lens reads"):
                load_sae(folder)
        endless = standard(4, 8)
        endless.W_dec.data[0, 0] = float("nan")
        with pytest.raises(InputError, match="W_dec holds values that are not finite"):
            load_sae(save_sae(endless, tmp_path / "nan"))
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("keep me")
        with pytest.raises(InputError, match="is not an autoencoder: not overwritten"):
            save_sae(standard(4, 8), tmp_path / "mine")
        assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_without_sae_lens_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)  # Python's own way to say: not there
    with pytest.raises(InputError, match=r"need sae-lens: pip install '\.\[sae\]'"):
        sae_lens()
