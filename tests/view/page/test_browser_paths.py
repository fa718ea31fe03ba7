"""The page of a head-level circuit in a real Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from circuit_maker import PATHS, edit_document, make_paths
from test_browser import ATTACK, Visit

from wirework.view import load_page_data
from wirework.view.figures.figure import draw_figure

pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    """A page whose tokens try to run script; it must stay silent and offline throughout."""
    visited = Visit(browser, tmp_path, make_paths(tmp_path / "c", extra_tokens=(ATTACK,)))
    yield visited
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith("data:")] == [visited.address]
    visited.page.close()


def test_components_and_path_edges_are_drawn_once(visit: Visit) -> None:
    assert visit.count(".item") == visit.count(".item.component") == 6
    assert visit.count(".wire") == visit.count(".wire.path") == len(PATHS)
    assert visit.count(".wire.negative") == 1
    assert visit.count(".wire.positive") == 6  # one effect is unknown
    letters = visit.node(3).locator("text").all()
    assert [letter.text_content() for letter in letters] == ["1.attn.3", "q", "k", "v"]
    assert visit.node(3).locator(".unread").all_text_contents() == ["k"]
    assert visit.page.locator("#strip").is_hidden()
    assert visit.page.locator("#residual").is_hidden()
    assert "better without it" in visit.page.locator("#legend").inner_text()
    assert "weight" not in visit.page.locator("#legend").inner_text()


def test_the_panel_has_the_numbers_of_patching_beside_the_model_s(visit: Visit) -> None:
    panel = visit.page.locator("#patching").inner_text()
    rows = [line.split("\t") for line in panel.splitlines()]
    assert ["KL from the model, nats", "0.0274", "0"] in rows
    assert ["logit difference", "3.94", "4.76"] in rows
    assert ["accuracy", "87.5%", "100%"] in rows
    assert "8 of 1,519" in panel
    assert "tau\n0.015" in panel
    assert "pairs of prompts, each way round" in panel
    facts = visit.page.locator("#facts").inner_text().split()
    assert {"path", "8", "1,519", "0.015", "0.146"} <= set(facts)
    assert "calibrated" not in facts


def test_the_panel_names_the_corrupted_prompt(browser: Any, tmp_path: Path, visit: Visit) -> None:
    # A file of an earlier version names none: it is the other prompt of the pair.
    assert "value on the pair's other prompt" in visit.page.locator("#patching").inner_text()
    folder = make_paths(tmp_path / "new")
    patching = json.loads((folder / "circuit.json").read_text())["patching"]
    patching |= {"corruption": "new_names", "both": False}
    visited = Visit(browser, tmp_path, edit_document(folder, patching=patching))
    panel = visited.page.locator("#patching").inner_text()
    assert "value on the same prompt with three other names" in panel
    assert visited.complaints == []
    visited.page.close()


def test_hover_on_a_path_edge_says_from_where_to_what_and_its_effect(visit: Visit) -> None:
    spot = visit.page.locator('[data-wire="4"] .link').evaluate(
        """(path) => {
          const at = path.getPointAtLength(path.getTotalLength() / 2);
          const seen = at.matrixTransform(path.getScreenCTM());
          return [seen.x, seen.y];
        }"""
    )
    visit.page.mouse.move(*spot)
    lines = visit.page.locator("#tooltip").inner_text().splitlines()
    assert lines[:2] == ["embed → 1.attn.3.v", "effect 0.3"]
    assert "read by the values of the head" in lines
    assert visit.count(".wire.lit") == 1
    assert visit.count(".item.lit") == 2


def test_a_selected_head_lists_its_edges_by_input(visit: Visit) -> None:
    visit.node(3).click()
    details = visit.page.locator("#details").inner_text()
    assert details.startswith("1.attn.3\nattention head 3 of layer 1")
    incoming, outgoing = visit.page.locator("#details .wires > div").all_inner_texts()
    assert incoming.splitlines() == ["Incoming (2)", "embed (v)\t0.3", "0.mlp (q)\t0.2"]
    assert outgoing.splitlines() == ["Outgoing (1)", "1.mlp\t\u2013"]
    assert visit.page.locator("#patching").is_visible()
    visit.page.locator("#details .name").first.click()
    assert visit.page.locator("#details h2").inner_text() == "embed"


def test_the_slider_hides_small_effects(visit: Visit) -> None:
    visit.page.locator("#threshold").fill("1000")
    shown = visit.page.locator(".wire:not(.off)").evaluate_all(
        "all => all.map(w => Number(w.dataset.wire))"
    )
    assert sorted(shown) == [0, 6]  # the largest, and the one of which nothing is known
    assert visit.page.locator("#shown-count").inner_text() == "1 of 7 shown"


def test_a_hostile_token_is_text_in_the_prompts(visit: Visit) -> None:
    assert visit.count("img") == 0
    assert visit.page.locator("#prompts .token").first.inner_text() == ATTACK.replace(" ", "·")
    assert visit.page.locator("#prompts button").first.is_disabled()


def test_the_keyboard_goes_up_an_edge(visit: Visit) -> None:
    visit.node(0).focus()
    visit.page.keyboard.press("ArrowUp")
    focused = int(visit.page.evaluate("document.activeElement.dataset.item"))
    points = visit.data["layout"]["points"]
    assert points[focused][1] < points[0][1]


def test_a_circuit_without_edges_opens(browser: Any, tmp_path: Path) -> None:
    visited = Visit(browser, tmp_path, make_paths(tmp_path / "c", [], n_prompts=0))
    assert visited.count(".item") == 2
    assert visited.page.locator("#shown-count").inner_text() == "0 of 0 shown"
    assert visited.complaints == []
    visited.page.close()


def test_a_task_of_many_answers_shows_two_of_them(browser: Any, tmp_path: Path) -> None:
    names = [" Tom", " Anna", " Ben", " Lily", " Max"]
    folder = make_paths(tmp_path / "c")
    task = {"name": "ioi", "answers": names, "n_pairs": 1}
    examples = json.loads((folder / "circuit.json").read_text())["examples"]
    examples["answers"] = [names[:2], names[2:4]]
    visited = Visit(browser, tmp_path, edit_document(folder, task=task, examples=examples))
    title = visited.page.locator("#title").inner_text()
    assert " ".join(title.split()) == "ioi answers ·Tom or ·Anna and 3 more, two to a pair"
    assert "1 pair of prompts" in visited.page.locator("#patching").inner_text()
    headings = visited.page.locator("#prompts h3").all_inner_texts()
    assert [heading.split(" · ")[1] for heading in headings] == ["1 prompt"] * 2
    assert visited.complaints == []
    figure = draw_figure(load_page_data(folder))
    written = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "answers  ·Tom   or   ·Anna   and 3 more" in written
    visited.page.close()
