"""The page in a real Chromium, from disk: what is drawn, shown on hover, coloured, and inert."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuit_maker import MODEL, edit_document, make_circuit, sum_again, with_shares
from safetensors.numpy import load_file, save_file

from wirework.view import load_page_data, write_page

pytestmark = pytest.mark.browser

ATTACK = "</script><img src=x onerror=alert(1)>"


class Visit:
    """A page opened from disk, the data behind it, and all it complained about or asked for."""

    def __init__(self, browser: Any, folder: Path, circuit: Path) -> None:
        self.data = load_page_data(circuit)
        self.page = browser.new_page(viewport={"width": 1500, "height": 1000})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = write_page(circuit, folder / "page.html").as_uri()
        self.page.goto(self.address)

    def count(self, selector: str) -> int:
        """How many elements match."""
        return int(self.page.locator(selector).count())

    def node(self, number: int) -> Any:
        """The drawn node with this number."""
        return self.page.locator(f'[data-item="{number}"]')


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    """A page whose tokens try to run script; it must stay silent and offline throughout."""
    visited = Visit(browser, tmp_path, make_circuit(tmp_path / "c", extra_tokens=(ATTACK,)))
    yield visited
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith("data:")] == [visited.address]
    visited.page.close()


def test_everything_is_drawn_once(visit: Visit) -> None:
    data = visit.data
    assert visit.count(".item.node") == len(data["nodes"]) == 40
    assert visit.count(".wire.edge") == len(data["edges"])
    drawn = len(data["in_edges"]) + len(data["out_edges"])
    assert visit.count(".wire.io-edge:not(.off)") == drawn
    assert visit.count(".wire.residual") == len(data["residual_links"])
    assert visit.count(".item.output") == 2
    assert visit.count(".head-box") == len(data["heads"])
    negative = sum(weight < 0 for _, _, weight in data["edges"])
    assert visit.count(".wire.edge.negative") == negative
    facts = visit.page.locator("#facts").inner_text().split()
    assert {"0.0123", "0.146", "0.121", "3.22", "0.693", "40"} <= set(facts)


@pytest.mark.parametrize("trained_on_tasks", [True, False, None])
def test_the_header_names_a_model_that_was_trained_on_tasks(
    browser: Any, tmp_path: Path, trained_on_tasks: bool | None
) -> None:
    model = {**MODEL, "trained_on_tasks": trained_on_tasks}
    circuit = edit_document(make_circuit(tmp_path / "c"), model=model)
    visited = Visit(browser, tmp_path, circuit)
    labels, values = visited.page.locator("#facts tr").all()[1:]
    cells = dict(
        zip(
            labels.locator("th").all_inner_texts(),
            values.locator("td").all_inner_texts(),
            strict=True,
        )
    )
    assert cells["width"] == "256"
    assert cells.get("trained on tasks") == ("yes" if trained_on_tasks else None)
    group = visited.page.locator("#facts th.group").first
    assert group.inner_text().lower() == "model"
    assert group.get_attribute("colspan") == ("5" if trained_on_tasks else "4")
    assert visited.complaints == []
    visited.page.close()


def test_hover_shows_exact_values_and_lights_neighbours(visit: Visit) -> None:
    number, _, weight = max(visit.data["edges"], key=lambda edge: abs(edge[2]))
    node = visit.data["nodes"][number]
    visit.node(number).hover()
    text = visit.page.locator("#tooltip").inner_text()
    assert node["name"] in text
    assert f"mean {node['mean']!r}" in text
    assert repr(weight) in text
    lit = {
        int(item.get_attribute("data-item") or -1) for item in visit.page.locator(".item.lit").all()
    }
    edges = [edge[:2] for edge in visit.data["edges"]] + visit.data["residual_links"]
    edges += [pair for head in visit.data["heads"] for pair in head["pairs"]]
    linked = {end for edge in edges if number in edge for end in edge}
    assert {item for item in lit if item < 40} == linked | {number}
    visit.page.mouse.move(2, 2)
    assert visit.page.locator("#tooltip").is_hidden()
    assert visit.count(".lit") == 0


def test_hover_on_an_edge_shows_its_weight(visit: Visit) -> None:
    wire = visit.page.locator(".wire.edge").last  # the strongest is on top
    weight = max((edge[2] for edge in visit.data["edges"]), key=abs)
    spot = wire.locator(".link").evaluate(
        """(path) => {
          const at = path.getPointAtLength(path.getTotalLength() / 2);
          const seen = at.matrixTransform(path.getScreenCTM());
          return [seen.x, seen.y];
        }"""
    )
    visit.page.mouse.move(*spot)
    assert repr(weight) in visit.page.locator("#tooltip").inner_text()


def test_what_searches_rarely_found_is_pale(browser: Any, tmp_path: Path, visit: Visit) -> None:
    assert visit.page.locator("#legend-shares").is_hidden()
    shared = Visit(browser, tmp_path, with_shares(make_circuit(tmp_path / "d"), 4))
    opacity = "(g) => Number(getComputedStyle(g).opacity)"
    places = [wire.get_attribute("data-wire") for wire in shared.page.locator(".wire.edge").all()]
    edges = sorted(map(int, filter(None, places)))  # in the order of circuit.json
    drawn = [shared.page.locator(f'[data-wire="{edge}"]').evaluate(opacity) for edge in edges[:5]]
    assert drawn == sorted(drawn)
    assert drawn[0] == pytest.approx(drawn[4] / 5, abs=0.01)
    shared.node(3).hover()
    assert "found again in 3 of 4 searches" in shared.page.locator("#tooltip").inner_text()
    shared.node(3).click()
    assert "found again\n3 of 4" in shared.page.locator("#details").inner_text()
    assert shared.page.locator("#legend-shares").is_visible()
    assert shared.complaints == []
    shared.page.close()


def test_deciding_tokens_are_drawn_and_white_space_is_counted(browser: Any, tmp_path: Path) -> None:
    made = make_circuit(tmp_path / "pairs", n_nodes=12, n_io=4, n_prompts=2)
    document = json.loads((made / "circuit.json").read_text())
    reads = [i for i, node in enumerate(document["nodes"]) if node["site"].endswith("act_in")]
    middle = document["examples"]["prompts"][0]
    prompts = [[*middle, " " * 15, last] for last in ("('", '("')]
    tokens = ['("', "('", " " * 15, *(f"unused{i}" for i in range(40))]
    io_edges = [
        {"token": token, "token_id": 100 + i, "target": reads[0], "weight": 0.1 if i < 3 else 9.0}
        for i, token in enumerate(tokens)
    ]
    examples = document["examples"] | {"prompts": prompts}
    edit_document(made, io_edges=io_edges, n_io_edges=len(io_edges), examples=examples)
    held = load_file(made / "circuit.safetensors")
    shape = (2, len(prompts[0]), 12)
    held["examples/activations"] = np.zeros(shape, np.float32)
    held["examples/lengths"] = np.full(2, len(prompts[0]), np.int32)
    save_file(held, made / "circuit.safetensors")
    sum_again(made)
    visited = Visit(browser, tmp_path, made)
    drawn = visited.page.locator(".item.input:not(.off) text").all_text_contents()
    assert sorted(drawn) == sorted(['("', "('", "·×15"])
    assert visited.page.locator(".item.deciding text").all_text_contents() == ['("', "('"]
    assert visited.page.locator(".note").text_content() == "and 40 more tokens"
    assert visited.page.locator("#legend-deciding").is_visible()
    assert "·" * 15 in visited.page.locator("#prompts .tokens").first.inner_text()
    assert visited.complaints == []
    visited.page.close()


@pytest.fixture
def many(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    """A page of a circuit in which one node reads 60 tokens; word0 has the largest weight."""
    words = tuple(f"word{i}" for i in range(60))
    made = make_circuit(tmp_path / "many", n_nodes=12, n_io=4, extra_tokens=words)
    document = json.loads((made / "circuit.json").read_text())
    reads = [i for i, node in enumerate(document["nodes"]) if node["site"].endswith("act_in")]
    io_edges = [
        {"token": word, "token_id": 100 + i, "target": reads[0], "weight": 60.0 - i}
        for i, word in enumerate(words)
    ]
    edit_document(made, io_edges=io_edges, n_io_edges=60)
    visited = Visit(browser, tmp_path, made)
    yield visited
    assert visited.complaints == []
    visited.page.close()


def test_few_tokens_are_drawn_and_the_rest_is_counted(many: Visit) -> None:
    assert many.count(".item.input:not(.off)") == 3
    assert many.page.locator(".note").text_content() == "and 57 more tokens"
    shown, total = 3 + len(many.data["edges"]), 60 + len(many.data["edges"])
    assert many.page.locator("#shown-count").inner_text() == f"{shown} of {total} shown"
    assert not many.page.locator(".wire.io-edge.off").first.is_visible()


def test_the_control_draws_all_tokens_below_and_moves_nothing(many: Visit) -> None:
    before = many.page.locator("[data-item='0'] rect").get_attribute("y")
    assert many.page.locator("#further-control").inner_text().strip() == "draw all 60 tokens"
    many.page.locator("#further").check()
    assert many.count(".item.input:not(.off)") == 60
    assert many.count(".wire.io-edge:not(.off)") == 60
    assert many.page.locator(".note").is_hidden()
    total = 60 + len(many.data["edges"])
    assert many.page.locator("#shown-count").inner_text() == f"{total} of {total} shown"
    assert many.page.locator("[data-item='0'] rect").get_attribute("y") == before
    box = many.page.locator(".band").first
    band = float(box.get_attribute("y") or 0) + float(box.get_attribute("height") or 0)
    lowest = max(y for _, y in many.data["layout"]["points"])
    assert band > lowest + 9
    many.page.locator("#further").uncheck()
    assert many.count(".item.input:not(.off)") == 3


def test_a_node_lists_all_its_tokens_and_a_click_draws_one(many: Visit) -> None:
    reader = many.data["folded"][0]["node"]
    many.node(reader).click()
    details = many.page.locator("#details")
    assert details.inner_text().count("word") == 60
    details.get_by_role("button", name="word42", exact=True).click()
    assert many.page.locator("#further").is_checked()
    assert many.page.locator(".item.pinned text").text_content() == "word42"


def test_a_named_node_keeps_its_own_name_on_hover_and_in_the_panel(
    browser: Any, tmp_path: Path
) -> None:
    made = make_circuit(tmp_path / "named", n_prompts=4)
    held = load_file(made / "circuit.safetensors")
    prompts = json.loads((made / "circuit.json").read_text())["examples"]["prompts"]
    values = np.zeros_like(held["examples/activations"])
    for p, prompt in enumerate(prompts):
        for t, token in enumerate(prompt):
            values[p, t, 0] = token == "print"
        values[p, len(prompt) - 1, 1] = -float(p % 2 == 0)
    held["examples/activations"] = values
    save_file(held, made / "circuit.safetensors")
    sum_again(made)
    visited = Visit(browser, tmp_path, made)
    (first, second), names = (0, 1), [node["name"] for node in visited.data["nodes"]]
    assert visited.node(first).locator("text").text_content().split()[-1] == "print"
    visited.node(first).hover()
    tooltip = visited.page.locator("#tooltip").inner_text()
    assert names[first] in tooltip
    assert "active at print 100%" in tooltip
    visited.node(second).click()
    details = visited.page.locator("#details").inner_text()
    assert names[second] in details
    assert "active before\n') 100% (negative)" in details
    fills = "(g) => getComputedStyle(g.querySelector('rect')).fill"
    answer = visited.page.locator(".item.output").first.evaluate(fills)
    assert visited.node(second).evaluate(fills) == answer
    assert visited.page.locator("#legend-at").is_visible()
    assert visited.page.locator("#legend-before").is_visible()
    assert visited.complaints == []
    visited.page.close()


def test_selecting_a_node_colours_the_prompts(visit: Visit) -> None:
    visit.node(5).click()
    assert visit.count(".item.pinned") == 1
    name = visit.data["nodes"][5]["name"]
    assert name in visit.page.locator("#details").inner_text()
    values = visit.data["activations"][5]
    tokens = visit.page.locator("#prompts .token")
    backgrounds = tokens.evaluate_all("all => all.map(t => [t.dataset.prompt, t.dataset.token, "
                                      "t.style.backgroundColor])")  # fmt: skip
    assert len(backgrounds) == sum(len(prompt) for prompt in values)
    for prompt, token, background in backgrounds:
        value = values[int(prompt)][int(token)]
        assert hue(background) in allowed_hues(value, values)
    where = next(i for i, (p, t, _) in enumerate(backgrounds) if values[int(p)][int(t)])
    tokens.nth(where).hover()
    prompt, token, _ = backgrounds[where]
    shown = visit.page.locator("#tooltip").inner_text()
    assert f"{name}: {values[int(prompt)][int(token)]!r}" in shown
    visit.page.keyboard.press("Escape")
    assert visit.count(".item.pinned") == 0
    assert tokens.first.evaluate("t => t.style.backgroundColor") == ""


def hue(background: str) -> int:
    """1 for a blue CSS colour, -1 for an orange one, 0 for white or none."""
    if not background:
        return 0
    red, _, blue = map(int, background.removeprefix("rgb(").removesuffix(")").split(", "))
    return (blue > red) - (blue < red)


def allowed_hues(value: float, values: list[list[float]]) -> set[int]:
    """The sign of the value; a hundredth of the scale may also look white."""
    most = max(abs(other) for row in values for other in row)
    sign = (value > 0) - (value < 0)
    return {sign} if abs(value) > most / 100 else {sign, 0}


def test_prompts_are_grouped_and_a_token_colours_the_nodes(visit: Visit) -> None:
    headings = visit.page.locator("#prompts h3").all_inner_texts()
    assert [heading.split(" ·")[0] for heading in headings] == [
        "Right answer ')",
        'Right answer ")',
    ]
    visit.page.locator("#prompts .prompt button").nth(8).click()
    assert "Prompt 2 of 16" in visit.page.locator("#strip").inner_text()
    visit.page.locator("#strip .token").nth(4).click()
    for number, values in enumerate(visit.data["activations"]):
        fill = visit.node(number).locator("rect").evaluate("r => r.style.fill")
        assert hue(fill) in allowed_hues(values[1][4], values)


def test_slider_and_checkbox_filter_the_wires(visit: Visit) -> None:
    weights = sorted(
        abs(edge[2]) for family in ("edges", "in_edges", "out_edges") for edge in visit.data[family]
    )
    visit.page.locator("#threshold").fill("500")
    least = weights[int((len(weights) - 1) / 2 + 0.5)]
    drawn = visit.count(".wire.edge:not(.off)") + visit.count(".wire.io-edge:not(.off)")
    assert drawn == sum(weight >= least for weight in weights)
    assert visit.page.locator("#shown-count").inner_text() == f"{drawn} of {len(weights)} shown"
    visit.page.locator("#residual").uncheck()
    assert visit.count(".wire.residual:not(.off)") == 0


def test_zoom_pan_and_fit(visit: Visit) -> None:
    scene = visit.page.locator("#pane svg > g")
    before = scene.get_attribute("transform")
    visit.page.mouse.move(300, 400)
    visit.page.mouse.wheel(0, -400)
    visit.page.wait_for_function("t => document.querySelector('#pane svg > g')"
                                 ".getAttribute('transform') !== t", arg=before)  # fmt: skip
    zoomed = scene.get_attribute("transform")
    visit.page.mouse.down()
    visit.page.mouse.move(340, 420, steps=3)
    visit.page.mouse.up()
    assert scene.get_attribute("transform") != zoomed
    assert visit.count(".item.pinned") == 0
    visit.page.locator("#zoom-fit").click()
    assert scene.get_attribute("transform") == before


def test_keyboard_reaches_and_pins_nodes(visit: Visit) -> None:
    visit.page.locator('[data-item="0"]').focus()
    visit.page.keyboard.press("ArrowUp")
    focused = visit.page.evaluate("document.activeElement.dataset.item")
    assert focused not in (None, "0")
    points = visit.data["layout"]["points"]
    assert points[int(focused)][1] < points[0][1]
    visit.page.keyboard.press("Enter")
    assert visit.page.locator(".item.pinned").get_attribute("data-item") == focused


def test_a_hostile_token_is_text_and_nothing_else(visit: Visit) -> None:
    assert visit.count("img") == 0
    assert visit.count("script") == 2
    token = visit.page.locator("#prompts .token").first
    assert token.inner_text() == ATTACK.replace(" ", "·")
    assert visit.page.evaluate("window.onerror") is None


@pytest.mark.parametrize("size", [{"n_nodes": 3, "n_edges": 2, "n_io": 2}, {"n_prompts": 0}])
def test_tiny_circuits_open(browser: Any, tmp_path: Path, size: dict[str, int]) -> None:
    visited = Visit(browser, tmp_path, make_circuit(tmp_path / "c", **size))
    visited.node(0).click()
    assert visited.count(".item.pinned") == 1
    assert visited.complaints == []
    visited.page.close()
