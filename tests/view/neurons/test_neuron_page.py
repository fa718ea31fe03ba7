"""The page of explained neurons: what is drawn how strongly, every text inert, files checked."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wirework.errors import InputError
from wirework.files import write_record
from wirework.view import write_neuron_page
from wirework.view.visible_text import plain

ATTACK = "</style><script>alert(1)</script><img src=x onerror=alert(1)>"


def excerpt(tokens: list[str], activations: list[float], **more: Any) -> dict[str, Any]:
    return {"start": 0, "tokens": tokens, "activations": activations, **more}


def make_neurons(folder: Path, **changes: Any) -> Path:
    """Three neurons: one explained well, one badly and with hostile texts, one dead."""
    first = {"format": "wirework-neuron", "version": 1, "site": "0.mlp.post_act", "index": 7}
    first |= {"peak": 2.0, "mean": 0.1, "live_fraction": 0.125, "dead": False}
    dead = first | {"index": 9, "peak": 0.0, "dead": True}
    detection = {"balanced_accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    scores = {"constant": False, "detection": {**detection, "auroc": 0.75}}
    correlation = {"top_and_random": 0.25, "top": 0.5, "random": None}
    shown = excerpt([" a", "b\n"], [2.0, -1.0], simulated=[0.0, 5.0], detected=5.0)
    first |= {"explainer": "patterns", "explanation": '" a" after "b"', "patterns": []}
    first |= {"scores": scores | {"correlation": correlation}, "threshold": 2.0}
    first |= {"top": [excerpt([f"t{i}"], [0.01]) for i in range(7)]}
    first |= {"held_out_top": [shown], "held_out_random": []}
    best = first | {"index": 8, "explanation": f"{ATTACK}\u202e\ud800"}
    best["scores"] = scores | {"correlation": correlation | {"top_and_random": 0.875}}
    best["held_out_random"] = [excerpt([ATTACK], [0.5], simulated=[2.5], detected=None)]
    (folder / "neurons").mkdir(parents=True)
    for neuron in (first | changes, best, dead):
        name = f"{neuron['site']}.{neuron['index']}.json".replace("/", "_")
        (folder / "neurons" / name).write_text(json.dumps(neuron))
    return folder


class TestWriteNeuronPage:
    def test_the_best_explained_come_first_and_the_dead_are_counted(self, tmp_path: Path) -> None:
        html = write_neuron_page(make_neurons(tmp_path / "n"), tmp_path / "n.html").read_text()
        assert re.findall(r"<code>([^<]*)</code>", html) == ["0.mlp.post_act.8", "0.mlp.post_act.7"]
        assert re.findall(r'class="score">(.*?)<', html) == ["0.875", "0.25"]
        assert "<h1>Explained neurons: 2</h1>" in html
        assert "Mean score <b>0.5625</b>" in html
        assert "1 more are dead" in html
        assert "&quot; a&quot; after &quot;b&quot;" in html
        facts = (
            "peak 2 · above 0 at 12.5% of tokens · score in top excerpts 0.5, in random ones n/a"
        )
        assert f"{facts} · detection AUROC 0.75" in html

    def test_tokens_are_shaded_by_activation_and_underlined_by_prediction(
        self, tmp_path: Path
    ) -> None:
        html = write_neuron_page(make_neurons(tmp_path / "n"), tmp_path / "n.html").read_text()
        assert '<span class="token a10" title="·a: 2, predicted 0">·a</span>' in html
        assert (
            '<span class="token s5" title="b⏎: -1, predicted 1">b⏎\n</span>' in html
        )  # 5 of 10 of 2
        assert (
            '<span class="token a1" title="t0: 0.01">t0</span>' in html
        )  # little, but not nothing
        assert "t4<" in html
        assert "t5<" not in html

    def test_hostile_texts_are_text(self, tmp_path: Path) -> None:
        page = write_neuron_page(make_neurons(tmp_path / "n"), tmp_path / "n.html")
        html = page.read_text(encoding="utf-8")
        assert "<script" not in html
        assert "<img" not in html
        assert html.count("&lt;/style&gt;&lt;script&gt;") == 3  # explanation, token and its title
        assert "\\u202e\\ud800" in html
        assert html.count("</style>") == 1
        again = write_neuron_page(tmp_path / "n", tmp_path / "m.html")
        assert again.read_bytes() == page.read_bytes()

    @pytest.mark.parametrize(
        ("token", "running", "title"),
        [
            (" " * 15, "·" * 15, "·×15"),
            (" " * 11, "·" * 11, "·×11"),
            (" " * 3, "···", "···"),
            ('"', "&quot;", "&quot;"),
            ("'<&>", "&#x27;&lt;&amp;&gt;", "&#x27;&lt;&amp;&gt;"),
            ("\\", "\\\\", "\\\\"),
            ("\x00\u202e\ud800", "\\x00\\u202e\\ud800", "\\x00\\u202e\\ud800"),
        ],
    )
    def test_every_token_can_be_told_from_others(
        self, token: str, running: str, title: str, tmp_path: Path
    ) -> None:
        made = make_neurons(tmp_path / "n", top=[excerpt([token], [1.0])])
        html = write_neuron_page(made, tmp_path / "n.html").read_text(encoding="utf-8")
        assert f'title="{title}: 1">{running}</span>' in html

    def test_neurons_without_a_file_are_told_of(self, tmp_path: Path) -> None:
        made, page = make_neurons(tmp_path / "n"), tmp_path / "n.html"
        assert "The run has not ended" in write_neuron_page(made, page).read_text()
        summary: dict[str, Any] = {"format": "wirework-explain", "stopped": None, "failures": []}
        (made / "explain.json").write_text(json.dumps(summary | {"left": 0}))
        whole = write_neuron_page(made, page).read_text()
        assert "The run has not ended" not in whole
        assert "Failed" not in whole
        failure = {"neuron": "0.mlp.post_act.3", "reason": f"no use: {ATTACK}"}
        summary |= {"stopped": f"over quota {ATTACK}", "left": 1200, "failures": [failure]}
        (made / "explain.json").write_text(json.dumps(summary))
        html = write_neuron_page(made, page).read_text()
        assert "Stopped early: over quota &lt;/style&gt;" in html
        assert "1,200 left" in html
        assert "<summary>Failed: 1</summary>" in html
        assert "<li><code>0.mlp.post_act.3</code> no use: &lt;/style&gt;" in html
        assert "<script" not in html
        (made / "explain.json").write_text(json.dumps(summary | {"failures": [{"neuron": 3}]}))
        with pytest.raises(InputError, match=r"explain.json: failures.0.neuron: .*string"):
            write_neuron_page(made, page)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"version": 2}, r"0.mlp.post_act.7.json is damaged: it has no checksum"),
            ({"format": "other"}, r"format: Input should be 'wirework-neuron'"),
            ({"top": [excerpt(["a"], [1.0, 2.0])]}, r"top.0: 1 tokens, but 2 values"),
            ({"peak": float("nan")}, r"7.json is not valid JSON: NaN is no number"),
        ],
    )
    def test_a_neuron_at_odds_is_refused(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        made = make_neurons(tmp_path / "n", **changes)
        with pytest.raises(InputError, match=message) as caught:
            write_neuron_page(made, tmp_path / "n.html")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "n.html").exists()

    def test_a_neuron_of_a_later_version_is_refused(self, tmp_path: Path) -> None:
        made = make_neurons(tmp_path / "n")
        path = made / "neurons" / "0.mlp.post_act.7.json"
        write_record(path, json.loads(path.read_text()) | {"version": 3})
        with pytest.raises(InputError, match=r"7.json: version: Input should be 1 or 2"):
            write_neuron_page(made, tmp_path / "n.html")

    def test_the_page_names_the_model(self, tmp_path: Path) -> None:
        made = make_neurons(tmp_path / "n")
        assert "<p>Model" not in write_neuron_page(made, tmp_path / "n.html").read_text()
        write_record(made / "settings.json", {"model": "ab" * 32, "path": "runs/<demo>"})
        html = write_neuron_page(made, tmp_path / "n.html").read_text()
        assert "<p>Model <code>runs/&lt;demo&gt;</code></p>" in html
        (made / "settings.json").write_text("{}")
        with pytest.raises(InputError, match=r"settings.json is damaged"):
            write_neuron_page(made, tmp_path / "n.html")

    def test_a_summary_that_is_no_file_is_not_taken_for_a_missing_one(self, tmp_path: Path) -> None:
        made = make_neurons(tmp_path / "n")
        (made / "explain.json").mkdir()
        with pytest.raises(InputError, match=r"cannot read .*explain.json"):
            write_neuron_page(made, tmp_path / "n.html")
        (made / "explain.json").rmdir()
        (made / "explain.json").write_text("{}")
        with pytest.raises(InputError, match=r"explain.json: failures: Field required"):
            write_neuron_page(made, tmp_path / "n.html")

    def test_a_run_without_neurons_says_why(self, tmp_path: Path) -> None:
        failure = {"neuron": "0.mlp.post_act.3", "reason": "nonsense"}
        (tmp_path / "explain.json").write_text(json.dumps({"failures": [failure]}))
        html = write_neuron_page(tmp_path, tmp_path / "n.html").read_text()
        assert "Explained neurons: 0" in html
        assert "nonsense" in html

    def test_a_folder_without_neurons_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no neurons at .*: expected a folder that"):
            write_neuron_page(tmp_path, tmp_path / "n.html")

    @pytest.mark.browser
    def test_the_page_opens_in_silence_and_offline(self, browser: Any, tmp_path: Path) -> None:
        address = write_neuron_page(make_neurons(tmp_path / "n"), tmp_path / "n.html").as_uri()
        page = browser.new_page()
        heard: list[str] = []
        page.on("console", lambda message: heard.append(message.text))
        page.on("dialog", lambda dialog: heard.append(dialog.message))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(address)
        said = page.locator(".said").last
        assert said.evaluate("s => getComputedStyle(s).whiteSpace") in ("pre-wrap", "break-spaces")
        token = page.locator(".token.a10").last
        assert not token.is_visible()
        page.locator("summary").last.click()
        assert token.is_visible()
        assert token.evaluate("t => getComputedStyle(t).backgroundColor") == "rgb(104, 172, 220)"
        line = "t => getComputedStyle(t).borderBottomColor"
        assert page.locator(".token.s5").last.evaluate(line) == "rgb(236, 175, 128)"
        assert [one for one in heard if not one.startswith("data:")] == [address]
        page.close()


def test_plain_keeps_what_can_be_read() -> None:
    assert plain('" a"\n\u202e') == '" a"\\x0a\\u202e'
