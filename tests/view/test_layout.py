from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirework.view.layout import Band, Row, place, spread

WIDTH = 34.0


class TestSpread:
    def test_spread_leaves_places_that_keep_their_distance(self) -> None:
        assert spread([0.0, 10.0, 50.0], [5.0, 5.0]) == [0.0, 10.0, 50.0]

    def test_spread_shares_the_shift_between_both(self) -> None:
        # Both want 10 and must stand 4 apart: 8 and 12 is the least-squares answer.
        assert spread([10.0, 10.0], [4.0]) == [8.0, 12.0]

    @given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 20)), min_size=1, max_size=20))
    def test_spread_keeps_distances_and_the_mean(self, pairs: list[tuple[float, float]]) -> None:
        wanted, distances = [a for a, _ in pairs], [d for _, d in pairs[1:]]
        places = spread(wanted, distances)
        for (left, right), distance in zip(pairwise(places), distances, strict=True):
            assert right - left >= distance - 1e-9
        assert sum(places) == pytest.approx(sum(wanted), abs=1e-6)


def bands_of(*rows: list[list[int]]) -> list[Band]:
    return [Band(f"b{i}", [Row("r", blocks)]) for i, blocks in enumerate(rows)]


class TestPlace:
    def test_place_puts_a_chain_in_one_column_going_up(self) -> None:
        layout = place(bands_of([[0]], [[1]], [[2]]), [WIDTH] * 3, [(0, 1, 1.0), (1, 2, 1.0)])
        (x0, y0), (x1, y1), (x2, y2) = layout.points
        assert x0 == x1 == x2
        assert y0 > y1 > y2

    def test_place_uncrosses_two_wires(self) -> None:
        links = [(0, 3, 1.0), (1, 2, 1.0)]
        layout = place(bands_of([[0], [1]], [[2], [3]]), [WIDTH] * 4, links)
        xs = [x for x, _ in layout.points]
        assert (xs[0] < xs[1]) == (xs[3] < xs[2])

    def test_place_keeps_blocks_together_and_in_order(self) -> None:
        bands = [
            Band("below", [Row("r", [[0], [1]])]),
            Band("heads", [Row("h", [[2, 3], [4]], True)]),
        ]
        layout = place(bands, [WIDTH] * 5, [(0, 4, 1.0), (1, 2, 1.0), (0, 3, 1.0)])
        xs = [x for x, _ in layout.points]
        assert xs[3] - xs[2] == pytest.approx(WIDTH + 4, abs=0.2)
        assert not xs[2] < xs[4] < xs[3]

    def test_place_folds_empty_bands_into_one(self) -> None:
        bands = bands_of([[0]], [], [], [[1]])
        layout = place(bands, [WIDTH] * 2, [(0, 1, 1.0)])
        assert [band.label for band in layout.bands] == ["b0", "b1 to b2", "b3"]
        assert [len(band.rows) for band in layout.bands] == [1, 0, 1]

    def test_place_lays_a_long_row_over_several_lines(self) -> None:
        layout = place(bands_of([[i] for i in range(100)]), [WIDTH] * 100, [])
        lines = {y for _, y in layout.points}
        assert len(lines) == 5  # 100 * (34 + 12) = 4600 pixels, 940 a line
        assert layout.width < 1150

    @given(st.data())
    def test_place_never_overlaps_items_of_a_row(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, 12))
        row = [[i] for i in range(n)]
        above = [[n + i] for i in range(n)]
        node = st.integers(0, n - 1)
        links = data.draw(st.lists(st.tuples(node, node.map(lambda i: i + n), st.floats(0.1, 2))))
        layout = place(bands_of(row, above), [WIDTH] * (2 * n), links)
        assert layout == place(bands_of(row, above), [WIDTH] * (2 * n), links)
        for items in (range(n), range(n, 2 * n)):
            xs = sorted(layout.points[i][0] for i in items)
            assert all(b - a >= WIDTH - 0.2 for a, b in pairwise(xs))
        assert all(x - WIDTH / 2 >= 0 and x + WIDTH / 2 <= layout.width for x, _ in layout.points)
        assert all(0 <= y <= layout.height for _, y in layout.points)

    def test_place_of_nothing(self) -> None:
        layout = place(bands_of([], []), [], [])
        assert layout.points == []
        assert layout.height > 0
