"""A training step: weight-sparse over a plain dense GPT and over public sparse code."""

from collections.abc import Iterator

from benchmarks.figure import RATIO, Figure, not_available
from benchmarks.settings import Settings
from benchmarks.step import LIVE_CALLS, Shape, has_live_gradient, make_step
from benchmarks.timing import alternate, over
from wirework.malloc import freed_memory_kept

NO_LIVE = "there is no setting weight_sparsity.gradient in this version"
TARGETS: dict[Shape, dict[str, float]] = {
    (256, 4, 128, 32): {"exact": 0.70, "live": 0.40},
    (512, 4, 256, 16): {"exact": 0.55, "live": 0.30},
}
SPARSE_CODE: Shape = (512, 4, 256, 16)
"""The shape at which the public sparse code is timed too."""
SPARSE_CODE_TARGET = 5.0
SPARSEST: Shape = (1024, 8, 256, 4)
"""The shape at which half a percent of the weights is kept."""
SPARSEST_TARGET = 0.10
CAREFUL = "weight-sparse, live with dense_every 4 / plain"
SMALL: Shape = (64, 2, 32, 4)


def measure(settings: Settings) -> Iterator[Figure]:
    """Yield ratios of steps that alternate, and milliseconds of each."""
    with freed_memory_kept():  # as in `train`
        if settings.quick:
            yield from at_shape(SMALL, {}, ("plain-sparse",), settings)
            return
        for shape, targets in TARGETS.items():
            more = ("plain-sparse",) if shape == SPARSE_CODE else ()
            yield from at_shape(shape, targets, more, settings)
        yield from at_lowest_density(settings)


def at_shape(
    shape: Shape, targets: dict[str, float], more: tuple[str, ...], settings: Settings
) -> list[Figure]:
    """Return the figures of one shape at a density of 1/64."""
    where = name_of(shape)
    live = ("live", "live-careful") if has_live_gradient() else ()
    variants = ("plain", "weight-sparse", *live, *more)
    steps = {one: make_step(one, shape, precision=settings.precision) for one in variants}
    seconds = alternate(steps, settings.counted_rounds, calls=LIVE_CALLS)
    plain, exact = seconds["plain"], seconds["weight-sparse"]
    figures = [
        Figure.of(f"{where} weight-sparse, exact / plain", over(exact, plain),
                  target=targets.get("exact")),
    ]  # fmt: skip
    name = f"{where} weight-sparse, live / plain"
    if live:
        figures.append(Figure.of(name, over(seconds["live"], plain), target=targets.get("live")))
        figures.append(Figure.of(f"{where} {CAREFUL}", over(seconds["live-careful"], plain)))
    else:
        figures.append(not_available(name, NO_LIVE, targets.get("live")))
    if "plain-sparse" in more:
        ratios = over(seconds["plain-sparse"], exact)
        target = None if settings.quick else SPARSE_CODE_TARGET
        figures.append(
            Figure.of(
                f"{where} public sparse code / weight-sparse", ratios,
                unit=RATIO, better="higher", target=target,
            )
        )  # fmt: skip
    return figures + milliseconds(where, seconds)


def at_lowest_density(settings: Settings) -> list[Figure]:
    """Return the figures of a wide model that keeps half a percent of its weights."""
    where = f"{name_of(SPARSEST)} 0.5%"
    live = ("live", "live-careful") if has_live_gradient() else ()
    variants = ("plain", *(live or ("weight-sparse",)))
    steps = {
        one: make_step(one, SPARSEST, precision=settings.precision, l0_fraction=0.005)
        for one in variants
    }
    rounds = min(4, settings.counted_rounds)
    seconds = alternate(steps, rounds, calls=LIVE_CALLS)
    plain = seconds["plain"]
    if live:
        ratios = over(seconds["live"], plain)
        first = [
            Figure.of(f"{where} weight-sparse, live / plain", ratios, target=SPARSEST_TARGET),
            Figure.of(f"{where} {CAREFUL}", over(seconds["live-careful"], plain)),
        ]
    else:
        first = [
            not_available(f"{where} weight-sparse, live / plain", NO_LIVE, SPARSEST_TARGET),
            Figure.of(
                f"{where} weight-sparse, exact / plain", over(seconds["weight-sparse"], plain)
            ),
        ]
    return first + milliseconds(where, seconds)


def milliseconds(where: str, seconds: dict[str, list[float]]) -> list[Figure]:
    """Return the milliseconds of each variant."""
    return [
        Figure.of(f"{where} {variant}", [1e3 * value for value in values], unit="ms")
        for variant, values in seconds.items()
    ]


def name_of(shape: Shape) -> str:
    """Return the beginning of the names of the figures of a shape."""
    return f"step {'x'.join(map(str, shape))}"
