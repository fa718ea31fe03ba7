from checks_fixtures import (
    everything,
    idle_gates,
    planted,
    planted_gates,
    quotes,
    some,
    some_gates,
    wired_ablation,
)

__all__ = [
    "everything",
    "idle_gates",
    "planted",
    "planted_gates",
    "quotes",
    "some",
    "some_gates",
    "wired_ablation",
]
