"""What all figures are measured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run of the benchmarks."""

    quick: bool = False
    """Small sizes and few rounds, to see that everything runs."""
    rounds: int = 3
    """Rounds of each comparison after warm-up."""
    precision: Precision = "float32"
    """Of the products of training steps, of plain code and of ours."""
    model: Path | None = None
    """Trained run on which circuits are searched; None to train one."""

    @property
    def counted_rounds(self) -> int:
        """Rounds, but few if quick."""
        return 2 if self.quick else self.rounds
