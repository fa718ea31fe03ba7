import hashlib
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from hand_wired import averager, depth_counter, quote_closer
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Planted
from present import present

from wirework.circuits import Ablation, AttackReport, EdgeMasks, find_attacks
from wirework.circuits.adversarial import sweep
from wirework.circuits.adversarial.attacks import LENGTHEN, NEUTRAL, Attack
from wirework.circuits.adversarial.heads import kept_heads, patterns, read_heads
from wirework.circuits.adversarial.padding import Padding
from wirework.circuits.adversarial.reading import CircuitOnModel, comment_units, encode, fits
from wirework.circuits.adversarial.strongest import (
    PairSplit,
    describe,
    report_worst,
    split_pairs,
    worst_by_length,
    worst_by_tokens,
)
from wirework.circuits.adversarial.sweep import AttackPoint, Comparison, Measure
from wirework.data import train_tokenizer
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Pair, TokenizedPairs, differences, load_task
from wirework.tasks.deciding_tokens import between
from wirework.view import write_curves


def found_in(planted: Planted) -> AttackReport:
    return find_attacks(circuit_of(planted), planted.model, pairs=16, progress=False)


def curve(found: AttackReport, attack: str) -> list[AttackPoint]:
    return [point for point in found.points if point.attack == attack]


@pytest.fixture(scope="module")
def averaging() -> Planted:
    return averager.plant()


@pytest.fixture(scope="module")
def diluted(averaging: Planted) -> AttackReport:
    return found_in(averaging)


@pytest.fixture(scope="module")
def quotes() -> Planted:
    return quote_closer.plant()


@pytest.fixture(scope="module")
def turned(quotes: Planted) -> AttackReport:
    return found_in(quotes)


class TestFindAttacks:
    def test_a_head_that_averages_is_diluted_and_the_curve_falls(self, diluted: AttackReport):
        (head,) = diluted.heads
        assert head.averages
        assert head.diluted
        assert head.spread == pytest.approx(head.tokens, rel=0.1)  # all weights are equal
        assert "head 0.0 averages over the context" in head.words()
        for name in (LENGTHEN.name, NEUTRAL.name):
            points = curve(diluted, name)
            assert {point.side for point in points} == {1}  # it is `]]` that needs a high average
            falling = [point.model.attacked.p for point in points]
            assert falling == sorted(falling, reverse=True)
            assert points[0].model.before.accuracy >= 0.9
            assert points[-1].model.attacked.accuracy <= 0.1
            last = points[-1].model
            assert last.control.p == pytest.approx(
                last.attacked.p, abs=0.05
            )  # length is all there is
        worst = diluted.by_length
        assert worst is not None
        assert worst.point.side == 1
        assert worst.example.model_says == "]\n"
        assert "`]]⏎`" in diluted.summary()["by_length"]

    def test_falls_are_those_of_the_means(self, diluted: AttackReport):
        for point in diluted.points:
            for comparison in (point.model, point.circuit):
                assert comparison.fall == pytest.approx(comparison.before.p - comparison.attacked.p)
                assert comparison.beyond == pytest.approx(
                    comparison.control.p - comparison.attacked.p
                )
            assert abs(point.tokens - point.control_tokens) <= 1

    def test_unmatched_brackets_raise_the_average(self, diluted: AttackReport):
        first = [token for token in diluted.tokens if token.side == 0]
        assert first
        assert all("[" in token.token for token in first)

    def test_the_planted_token_is_found_by_reading(self, quotes: Planted, turned: AttackReport):
        single, double = quote_closer.quotes(quotes.model, quotes.task)
        by_side = [{token.token_id for token in turned.tokens if token.side == s} for s in (0, 1)]
        assert by_side[0]
        assert by_side[1]
        assert by_side[0] <= double  # it turns what a single quote opened
        assert by_side[1] <= single
        worst = turned.by_tokens
        assert worst is not None
        (place,) = {t.place for t in turned.tokens if t.attack.name == worst.point.attack}
        assert {token.place for token in turned.tokens} == {"comment", "string"}
        string = [token for token in turned.tokens if token.place == "string"]
        both = {replace(string[0], side=side).attack.name for side in (0, 1)}
        assert len(both) == 2  # attacks are found by their names
        assert worst.point.model.attacked.accuracy <= 0.1
        assert worst.point.model.control.accuracy == worst.point.model.before.accuracy == 1
        assert worst.inserted["0.0"] > 0.5
        example = worst.example
        assert example["model_says"] != example["right"]
        assert example["prompt"].startswith("#") == (place == "comment")
        assert example["p"] < 0.5
        assert "once: accuracy where `" in turned.summary()["by_tokens"]
        assert turned.by_length is None  # a head that picks does not mind

    def test_a_head_that_picks_is_said_to(self, turned: AttackReport):
        head = next(head for head in turned.heads if head.head == 0)
        assert not head.averages
        assert head.spread[0] < 3
        assert head.deciding[0] > 0.5
        assert "picks tokens" in head.words()

    def test_a_depth_counter_counts_brackets_in_comments(self):
        found = found_in(depth_counter.plant())
        assert {token.token.strip() for token in found.tokens if token.side == 0} & {"[", "[["}
        assert found.by_tokens is not None
        assert found.by_length is None

    def test_an_effect_of_chance_on_the_pairs_that_choose_is_not_reported(
        self, quotes: Planted, monkeypatch: pytest.MonkeyPatch
    ):
        """A model that is right by the toss of a coin, whatever is done to a prompt."""

        def toss(_, rows: TokenizedPairs) -> torch.Tensor:
            prompts = [
                ids[: at + 1]
                for ids, at in zip(rows.tokens.tolist(), rows.last_positions, strict=True)
            ]
            heads = [hashlib.sha256(f"0 {ids}".encode()).digest()[0] < 128 for ids in prompts]
            return torch.tensor([5.0 if head else -5.0 for head in heads])

        monkeypatch.setattr(sweep, "differences", toss)
        found = find_attacks(circuit_of(quotes), quotes.model, pairs=8, progress=False)
        worst = found.by_tokens
        assert worst is not None
        told = worst.point.model
        assert told.beyond <= 3 * told.beyond_se
        chosen = worst.chosen.model
        assert chosen.beyond > 3 * chosen.beyond_se  # the best of some forty tosses
        assert worst.held_out
        assert not worst.confirmed
        assert "8 held-out pairs, which do not confirm it" in found.summary()["by_tokens"]

    def test_which_pairs_each_number_is_of(self, turned: AttackReport):
        said = turned.to_json()
        assert (said["n_read"], said["n_choosing"], said["n_reporting"]) == (4, 8, 8)
        assert said["held_out"] is True
        assert said["measured_on"]["points"] == "choosing"
        assert said["measured_on"]["by_tokens"]["point"] == "held out"
        assert said["by_tokens"]["point"]["n_pairs"] == 8
        assert said["by_tokens"]["point"] != said["by_tokens"]["chosen"]
        assert turned.summary()["pairs"] == (
            "tokens read on 4 pairs that judged the circuit; attacks chosen on 8 held-out pairs, "
            "measured on 8 others"
        )
        assert "± 0.00" in turned.summary()["by_tokens"]
        assert "of 8 held-out pairs" in turned.summary()["by_tokens"]
        for token in turned.tokens:
            assert token.held_out_drop == pytest.approx(token.drop, rel=0.5)
            assert present(token.held_out_drop_se) >= 0
            assert token.n_held_out > 1

    def test_too_few_pairs_to_hold_some_out_are_told(
        self, quotes: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        lines = [
            json.dumps({"prompts": pair.prompts, "answers": pair.answers})
            for pair in quotes.task.pairs[:12]
        ]
        (tmp_path / "few.jsonl").write_text("\n".join(lines))
        task = load_task(tmp_path / "few.jsonl")
        few = replace(quotes, task=task)
        found = find_attacks(circuit_of(few), few.model, progress=False)
        (line,) = capsys.readouterr().err.splitlines()
        assert "task few has too few held-out pairs" in line
        assert "(3)" in line
        assert not found.held_out
        assert found.n_choosing == found.n_reporting == 3
        worst = found.by_tokens
        assert worst is not None
        assert not worst.held_out
        assert worst.point == worst.chosen
        assert found.to_json()["measured_on"]["by_tokens"]["point"] == "choosing"
        assert "not held out" in found.summary()["by_tokens"]
        assert "NOT held out" in found.summary()["pairs"]

    def test_the_same_circuit_gives_the_same_result(self, quotes: Planted, turned: AttackReport):
        assert found_in(quotes).to_json() == turned.to_json()

    def test_bad_input_is_one_line(self, quotes: Planted, averaging: Planted, random_model: Model):
        circuit = circuit_of(quotes)
        with pytest.raises(InputError, match="belongs to another model"):
            find_attacks(circuit, random_model)
        with pytest.raises(InputError, match="two pairs or more, got 1"):
            find_attacks(circuit, quotes.model, pairs=1)
        with pytest.raises(InputError, match="does not say where its model lies"):
            find_attacks(circuit)

    def test_prompts_without_room_are_told(self, averaging: Planted, tmp_path: Path):
        """A user's task whose prompts fill the context."""
        encode = present(averaging.model.tokenizer).encode
        by_length: dict[int, list[Pair]] = {}
        for pair in averaging.task.pairs:
            by_length.setdefault(max(len(encode(prompt)) for prompt in pair.prompts), []).append(
                pair
            )
        length, pairs = max(by_length.items(), key=lambda item: len(item[1]))
        lines = [json.dumps({"prompts": pair.prompts, "answers": pair.answers}) for pair in pairs]
        (tmp_path / "full.jsonl").write_text("\n".join(lines))
        full = averager.plant(length, load_task(tmp_path / "full.jsonl"))
        with pytest.raises(InputError, match=f"no attack fits task full: .* up to {length} tokens"):
            found_in(full)


class TestPatterns:
    def test_attention_is_that_of_the_model(
        self, random_model: Model, ablation: Ablation, rows: TokenizedPairs
    ):
        """The pattern times the values is what the heads give."""
        edge_masks = EdgeMasks.of(ablation, torch.ones(ablation.size))
        circuit = CircuitOnModel(random_model, edge_masks, torch.ones(edge_masks.size))
        weights = patterns(circuit, rows)
        assert kept_heads(circuit) == [(layer, head) for layer in (0, 1) for head in (0, 1)]
        width = random_model.config.d_head
        sites = [f"{layer}.attn.{kind}" for layer in (0, 1) for kind in "vy"]
        _, values = random_model.run_with_cache(rows.tokens, sites)
        at = torch.arange(len(rows.last_positions)), rows.last_positions
        for weight, (layer, head) in zip(weights, kept_heads(circuit), strict=True):
            v, y = (
                values[f"{layer}.attn.{kind}"][..., head * width :][..., :width] for kind in "vy"
            )
            assert torch.allclose((weight[:, None] @ v)[:, 0], y[at], atol=1e-5)
        assert (weights.sum(-1) < 1).all()  # the sink has its share

    def test_attention_sees_what_its_window_shows(self, averaging: Planted):
        circuit = CircuitOnModel(
            averaging.model, *circuit_of(averaging).edge_masks(averaging.model)
        )
        rows = encode(averaging.task.pairs[:2], averaging.model)
        attention = averaging.model.transformer.blocks[0].attn
        attention.window = 3
        try:
            (weights,) = patterns(circuit, rows)
        finally:
            attention.window = None
        assert ((weights > 0).sum(-1) == 3).all()
        assert weights.sum(-1) == pytest.approx(3 / 43)


def test_heads_are_read_where_the_prompts_differ(averaging: Planted):
    """All weights are equal, so the deciding share is counted tokens over 40 + length."""
    circuit = CircuitOnModel(averaging.model, *circuit_of(averaging).edge_masks(averaging.model))
    pairs = averaging.task.pairs[:1]
    (head,) = read_heads(circuit, pairs, pairs)
    ids = [present(averaging.model.tokenizer).encode(prompt) for prompt in pairs[0].prompts]
    shares = [
        max(1, end - first) / (40 + len(own))
        for own, other in (ids, reversed(ids))
        for first, end in [between(own, other)]
    ]
    assert head.deciding[0] == pytest.approx(sum(shares) / 2)
    assert head.sink[0] == pytest.approx(sum(40 / (40 + len(own)) for own in ids) / 2)
    assert not head.diluted


class TestCommentUnits:
    def test_comment_units_hold_their_token(self, quotes: Planted):
        tokenizer = present(quotes.model.tokenizer)
        units = comment_units(tokenizer, range(tokenizer.vocab_size))
        assert tokenizer.eot not in units
        assert len(units) > 100
        for token, unit in units.items():
            assert tokenizer.encode(f"#{unit}{unit} value").count(token) >= 2
            assert "\n" not in unit

    def test_a_token_that_melts_into_a_word_stands_behind_a_digit(self):
        tokenizer = train_tokenizer(["# value values 1 values value"] * 9, 263, answers=())
        (melting,) = tokenizer.encode("s")
        assert len(tokenizer.encode(" values")) == 1
        assert comment_units(tokenizer, [melting]) == {melting: " 1s"}


class TestReportWorst:
    def test_the_example_was_right_before(self):
        """Of two that are wrong now it is the one that was right.

        The other is further off.
        """
        planted = averager.plant(n_ctx=256)
        model = planted.model
        circuit = CircuitOnModel(model, *circuit_of(planted).edge_masks(model))
        row = Pair(("x = [" + "1, " * 9 + "2", "x = [[" + "1, " * 9 + "2"), ("]\n", "]]\n"))
        short, long = row, present(NEUTRAL(row, 8, Random(0)))
        made = Attack(
            "far", lambda pair, n, rng: NEUTRAL.change(pair, 4 if pair == row else 8, rng)
        )
        logit_diffs = differences(model.transformer, encode([short, long], model)).view(2, 2)
        assert logit_diffs[0, 1] > 0 > logit_diffs[1, 1]
        measured = replace(point("far", (1.0, 0.0, 0.0)), side=1, attack="far")
        padding = Padding(model.tokenizer)
        split = PairSplit([long, short], [long, short], False)
        worst = report_worst(_last, [measured], {"far": made}, circuit, split, padding, row.answers)
        told = present(worst).example
        assert told["prompt"].endswith(short.prompts[1])
        assert not told["prompt"].endswith(long.prompts[1])

    def test_the_chosen_attack_is_measured_on_the_other_pairs(
        self, quotes: Planted, monkeypatch: pytest.MonkeyPatch
    ):
        """An attack that turns all choosing pairs and no other is reported to turn none."""
        circuit = CircuitOnModel(quotes.model, *circuit_of(quotes).edge_masks(quotes.model))
        split = split_pairs(quotes.task.pairs[:8], 8)
        assert (split.choosing, split.reporting) == (
            list(quotes.task.pairs[0:8:2]), list(quotes.task.pairs[1:8:2]),
        )  # fmt: skip
        monkeypatch.setattr(
            sweep, "differences", lambda _, rows: torch.full((len(rows.last_positions),), 5.0)
        )
        measured = replace(point("first", (1.0, 0.0, 1.0)), attack=NEUTRAL.name)
        padding = Padding(quotes.model.tokenizer)
        attacks = {NEUTRAL.name: NEUTRAL}
        told = report_worst(
            worst_by_tokens, [measured], attacks, circuit, split, padding, ("')", '")')
        )  # fmt: skip
        told = present(told)
        assert told.chosen == measured
        assert told.chosen.model.attacked.accuracy == 0
        assert told.point.model.attacked.accuracy == 1
        assert told.point.n_pairs == 4
        assert not told.confirmed

    @pytest.mark.slow
    def test_what_no_reporting_pair_has_room_for_is_passed_over(self, quotes: Planted):
        circuit = CircuitOnModel(quotes.model, *circuit_of(quotes).edge_masks(quotes.model))
        split = split_pairs(quotes.task.pairs[:8], 8)
        points = [replace(point(NEUTRAL.name, (1.0, 0.5, 1.0)), strength=n) for n in (1, 4096)]
        padding = Padding(quotes.model.tokenizer)
        told = report_worst(
            _last, points, {NEUTRAL.name: NEUTRAL}, circuit, split, padding, ("a", "b")
        )  # fmt: skip
        told = present(told)
        assert told.chosen.strength == 1
        assert not told.confirmed  # four pairs are too few, whatever they show


def _last(points: list[AttackPoint]) -> AttackPoint | None:
    return points[-1] if points else None


class TestSplitPairs:
    def test_choosing_and_reporting_pairs_share_no_prompt(self):
        def pair(first: str, second: str) -> Pair:
            return Pair((first, second), ("a", "b"))

        pairs = [pair("p", "q"), pair("p", "r"), pair("s", "t"), pair("u", "v"), pair("w", "x")]
        split = split_pairs(pairs, 2)
        assert split.choosing == [pairs[0], pairs[2]]
        assert split.reporting == [pairs[3], pairs[4]]
        assert split.held_out
        few = split_pairs(pairs[:3], 9)
        assert few == PairSplit(pairs[:3], pairs[:3], False)

    def test_pairs_that_share_prompts_with_their_neighbours_are_held_out_in_groups(self):
        pairs = [Pair((f"p{i // 2}", f"q{i}"), ("a", "b")) for i in range(8)]
        split = split_pairs(pairs, 64)
        assert split == PairSplit([*pairs[:2], *pairs[4:6]], [*pairs[2:4], *pairs[6:]], True)


def point(
    name: str,
    accuracy: tuple[float, float, float],
    errors: float = 0.01,
    tokens: float = 20.0,
    circuit: Comparison | None = None,
) -> AttackPoint:
    """A point with accuracies (and P) before, attacked, of the control; the circuit's the same."""
    before, attacked, control = (Measure(a, 0.0, a, a, a, 0.0, 0.0, 0.0) for a in accuracy)
    comparison = Comparison(
        attacked, before, control,
        before.p - attacked.p, errors, control.p - attacked.p, errors,
    )  # fmt: skip
    return AttackPoint(name, 1, 0, 16, tokens, 10.0, tokens, comparison, circuit or comparison)


class TestWorstByTokens:
    def test_the_worst_is_judged_against_its_control(self):
        tokens = point("tokens", (1.0, 0.6, 1.0))
        length = point("length", (1.0, 0.2, 0.2))
        nothing = point("nothing", (1.0, 1.0, 1.0))
        assert worst_by_tokens([length, tokens, nothing]) == tokens
        assert worst_by_length([length, tokens, nothing]) == length
        assert worst_by_tokens([nothing]) is None
        noise = point("noise", (1.0, 0.8, 1.0), errors=0.1)
        assert worst_by_tokens([noise, length]) is None
        assert worst_by_length([noise, tokens]) is None
        long, short = (
            point("tokens", (1.0, a, 1.0), tokens=t) for a, t in ((0.0, 40.0), (0.04, 12.0))
        )
        assert worst_by_tokens([long, short, tokens]) == short

    def test_an_attack_that_turns_the_circuit_too_goes_first(self):
        calm = point("calm", (1.0, 1.0, 1.0)).model
        withstood = point("withstood", (1.0, 0.1, 1.0), circuit=calm)
        shared = point("shared", (1.0, 0.5, 1.0))
        assert worst_by_tokens([withstood, shared]) == shared
        assert worst_by_tokens([withstood]) == withstood
        hardly = point("hardly", (1.0, 0.98, 1.0), circuit=shared.model)
        assert worst_by_tokens([withstood, hardly]) == withstood
        unsaid = replace(hardly, model=point("p alone", (1.0, 1.0, 1.0)).model)
        assert worst_by_tokens([withstood, unsaid]) == withstood
        answers = ("a", "b")
        assert "withstands it" in describe(withstood, answers, held_out=True)
        assert "withstands it" not in describe(shared, answers, held_out=True)


def test_measures_by_hand():
    logit_diffs = torch.tensor([[0.0, 20.0], [20.0, -20.0]])
    measure = Measure.of(logit_diffs, side=0)
    assert measure.p == pytest.approx(0.75)
    assert measure.p_se == pytest.approx(0.25)
    assert measure.accuracy == 0.5  # a tie is not right
    assert measure.p_both == pytest.approx(0.625)
    assert measure.accuracy_both == 0.5


def test_a_pair_that_does_not_fit_is_told(quotes: Planted):
    pair = quotes.task.pairs[0]
    assert fits(pair, quotes.model)
    assert not fits(None, quotes.model)
    long = "x = 1\n" * 80
    assert not fits(
        Pair((long + pair.prompts[0], long + pair.prompts[1]), pair.answers), quotes.model
    )


def test_curves_are_drawn(turned: AttackReport, tmp_path: Path):
    first = write_curves(turned.to_json(), tmp_path / "a.png")
    second = write_curves(turned.to_json(), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
