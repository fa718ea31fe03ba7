"""Neutral code of a given length: the control for attacks that make prompts longer.

A longer prompt alone may hurt a model, so an attack is compared with the same prompts after as many
tokens of code without quotes and square brackets.
"""

from random import Random

from wirework.circuits.adversarial.attacks import neutral_lines
from wirework.data import Tokenizer
from wirework.tasks import Pair
from wirework.tasks.snippets import WORDS

_POOL = 64
"""Number of neutral lines to draw from, besides short comments."""


class Padding:
    """Neutral lines of code with their lengths in tokens."""

    def __init__(self, tokenizer: Tokenizer, seed: int = 0) -> None:
        """Draw the lines.

        Args:
            tokenizer: the model's tokeniser, which counts their tokens.
            seed: seed of the draw.
        """
        rng = Random(f"padding {seed}")
        self._tokenizer = tokenizer
        lines = [*neutral_lines(rng, _POOL), "#", *(f"# {word}" for word in WORDS)]
        texts = [f"{line}\n" for line in dict.fromkeys(lines)]
        self._pool = [(len(tokenizer.encode(text)), text) for text in texts]

    def text(self, n_tokens: int, rng: Random) -> str:
        """Return lines whose lengths add up to about `n_tokens` tokens, and not to more.

        Args:
            n_tokens: number of tokens.
            rng: source of random draws.
        """
        chosen_lines: list[str] = []
        while fitting := [entry for entry in self._pool if entry[0] <= n_tokens]:
            # Long lines first; short comments fill the remaining tokens.
            longest = max(length for length, _ in fitting)
            length, text = rng.choice([entry for entry in fitting if 2 * entry[0] > longest])
            chosen_lines.append(text)
            n_tokens -= length
        return "".join(chosen_lines)

    def control(self, before: Pair, after: Pair, rng: Random) -> Pair:
        """Return `before` with neutral code in front, about as long as `after`."""
        encoded = self._tokenizer.encode_batch([*before.prompts, *after.prompts])
        sizes = [len(ids) for ids in encoded]
        text = self.text(max(0, sizes[2] - sizes[0], sizes[3] - sizes[1]), rng)
        return Pair((text + before.prompts[0], text + before.prompts[1]), before.answers)
