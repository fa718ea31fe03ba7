"""All instruments on one model, and reports of several side by side."""

import csv
import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from present import present

from wirework import commands, console
from wirework.config import GatingConfig, MeasureConfig, ModelConfig
from wirework.errors import InputError
from wirework.measures import COLUMNS, Headline, MeasureReport, headline, measure, reasons
from wirework.measures.explain.explanations import ExplainReport
from wirework.measures.language import Language
from wirework.measures.report import AcdcMeasures
from wirework.measures.report_files import check_report_place, write_reports
from wirework.measures.sae import SaeQuality
from wirework.measures.sparsity import Sparsity
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.summaries import NotMeasured
from wirework.view import write_measures_figure

pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")
QUICK = MeasureConfig.of({
    "n_tokens": 256, "task": "for_while", "acdc": {"pairs": 2},
    "sae": {"tokens": 5120, "eval_tokens": 256, "expansion": 2, "buffer": 2048},
    "explain": {"neurons": 3, "explain_excerpts": 32, "score_excerpts": 32},
})  # fmt: skip


def gated(tokenizer) -> Model:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=64, n_layer=2, d_model=16, d_head=8, d_mlp=32
    )
    gates = Gates(config, GatingConfig(k_attention=2, k_neurons=4))
    return Model(Transformer(config, seed=1), tokenizer, gates=gates)


class TestMeasure:
    def test_a_report_has_what_was_asked_for_and_its_headline(
        self, tokenizer, text, tmp_path
    ) -> None:
        report = measure(gated(tokenizer), config=QUICK, data=text, progress=False)
        assert list(report) == ["headline", *QUICK.instruments]
        assert not [name for name, values in report.items() if "reason" in values]
        assert report["headline"]["perplexity"] == report["language"]["perplexity"]
        assert report["headline"]["gate_live_fraction"] == pytest.approx((2 + 4) / (16 + 32))
        assert report["headline"].keys() == COLUMNS.keys()
        assert report["headline"]["task_accuracy"] == pytest.approx(0.5, abs=0.1)  # of both prompts
        assert isinstance(report.sparsity, Sparsity)
        assert isinstance(report.acdc, AcdcMeasures)
        assert isinstance(report.sae, SaeQuality)
        assert isinstance(report.explain, ExplainReport)
        assert report.headline.dead_units == present(report.sparsity.gates).dead_units
        assert report.acdc.n_all == report["acdc"]["of"]  # by key as in the file, for one release
        assert report.acdc.skill.accuracy == report.headline.task_accuracy
        assert report.explain.scores["top"].mean == report["explain"]["scores"]["top"]["mean"]
        assert report.sae.ce_score == report.headline.ce_score
        json.dumps(report.to_dict(), allow_nan=False)
        with pytest.raises(FrozenInstanceError):
            report.headline = Headline()  # type: ignore[misc]
        two = measure(
            gated(tokenizer).save(tmp_path / "model"), ["language", "sparsity"], QUICK, data=text
        )
        assert list(two) == ["headline", "language", "sparsity"]
        assert two.headline.path_edges is None
        assert two.acdc is None

    def test_an_instrument_that_does_not_fit_leaves_the_others(self, tokenizer, text) -> None:
        config = MeasureConfig.of(
            {**QUICK.model_dump(), "task": "ioi", "instruments": ["acdc", "language"]}
        )
        report = measure(gated(tokenizer), config=config, data=text, progress=False)
        assert "does not fit" in report["acdc"]["reason"]
        assert isinstance(report.acdc, NotMeasured)
        assert report.to_dict()["acdc"] == {"reason": report.acdc.reason}
        assert isinstance(report.language, Language)
        assert report.language.loss > 0
        assert list(reasons(report)) == ["acdc"]
        assert report.summary()["no acdc"] == report.acdc.reason
        assert reasons(report.to_dict()) == reasons(report)
        with pytest.raises(InputError, match="no task or file 'iio'"):
            measure(gated(tokenizer), config=QUICK.model_copy(update={"task": "iio"}), data=text)
        with pytest.raises(InputError, match="instruments"):
            measure(gated(tokenizer), ["langage"], QUICK, data=text)  # type: ignore[list-item]

    def test_instruments_have_their_first_name_too(self, tokenizer, text, capsys) -> None:
        first_name: Any = {"which": ["language"]}
        report = measure(gated(tokenizer), config=QUICK, data=text, progress=False, **first_name)
        assert list(report) == ["headline", "language"]
        assert "argument which of measure is called instruments now" in capsys.readouterr().err


class TestMeasureCommand:
    def test_the_command_writes_what_it_could_measure(
        self, tokenizer, tmp_path: Path, capsys
    ) -> None:
        folder, out = gated(tokenizer).save(tmp_path / "model"), tmp_path / "measures"
        quick = QUICK.model_copy(update={"instruments": ("language",)})
        with pytest.raises(InputError, match="nothing was measured: no training text"):
            commands.measure(folder, settings=quick, out=out)
        assert capsys.readouterr().err == ""  # said once, by the error
        assert not out.exists()
        commands.measure(
            folder, settings=quick.model_copy(update={"instruments": ("language", "acdc")}), out=out
        )
        said = capsys.readouterr()
        assert "language: no training text" in said.err
        assert "acdc: the model gets for_while right" in said.err
        assert "sae" not in said.out  # what was not asked for has no row
        (report,) = json.loads((out / "measures.json").read_text()).values()
        assert report["headline"]["path_edges"] == report["acdc"]["n_path_edges"]
        assert {path.name for path in out.iterdir()} == {
            "measures.json",
            "measures.csv",
            "measures.png",
        }

    def test_a_reason_of_several_instruments_and_models_is_said_once(
        self, tokenizer, tmp_path: Path, capsys
    ) -> None:
        one, other = (gated(tokenizer).save(tmp_path / name) for name in ("one", "other"))
        quick = QUICK.model_copy(update={"instruments": ("language", "sparsity", "acdc", "sae")})
        commands.measure(one, other, settings=quick)
        said = capsys.readouterr().err.splitlines()
        assert sum("no training text" in line for line in said) == 1
        assert any(f"{one}: language, sparsity, sae: no training text" in line for line in said)
        assert f"warning: {other}: language, sparsity, sae: as {one}" in said
        with pytest.raises(InputError) as error:
            commands.measure(
                one, settings=quick.model_copy(update={"instruments": ("language", "sae")})
            )
        assert str(error.value).count("no training text") == 1

    def test_where_the_tokens_of_a_given_text_are_is_said(
        self, tokenizer, tmp_path: Path, capsys, monkeypatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(console, "_said_once", set())
        folder = gated(tokenizer).save(tmp_path / "model")
        Path("notes.txt").write_text("x = 1\nfor y in range(10):\n    print(y)\n" * 400)
        quick = QUICK.model_copy(update={"instruments": ("language",)})
        commands.measure(folder, folder, settings=quick, corpus="notes.txt")
        said = capsys.readouterr().err.splitlines()
        (made,) = Path("data").glob("notes-*")
        assert said.count(f"the tokens of notes.txt are in {made}") == 1


def test_headlines_leave_out_what_is_no_number() -> None:
    report = {"language": {"perplexity": float("inf")}, "acdc": {"reason": "no"}}
    assert headline(report) == Headline()


class TestReportFiles:
    def test_reports_side_by_side(self, tmp_path: Path) -> None:
        reports = {
            "runs/a": MeasureReport(Headline(perplexity=5.5, sae_l0=7)),
            "runs/$b": MeasureReport(Headline(perplexity=6.5)),
        }
        folder = tmp_path / "measures"
        check_report_place(folder)
        write_reports(reports, folder)
        assert write_measures_figure(folder).read_bytes().startswith(b"\x89PNG")
        (folder / ".measures.csv.123.partial").touch()  # a kill left it
        check_report_place(folder)
        rows = list(csv.DictReader((folder / "measures.csv").read_text().splitlines()))
        assert [row["perplexity"] for row in rows] == ["5.5", "6.5"]
        assert rows[1]["sae_l0"] == ""
        (folder / "mine.txt").write_text("mine")
        with pytest.raises(InputError, match=r"mine\.txt"):
            check_report_place(folder)

    @pytest.mark.parametrize("name", ["measures.json", "measures.csv", "measures.png"])
    @pytest.mark.parametrize("text", ["mine", "[]", "{}", '{"mine": {}}'])
    def test_files_of_the_same_names_are_not_taken_for_reports(
        self, tmp_path: Path, name, text
    ) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"holds {name}, which measure has not made"):
            check_report_place(tmp_path)
        with pytest.raises(InputError, match="is a file: it should be a folder"):
            check_report_place(tmp_path / name)
