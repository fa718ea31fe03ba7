"""The result of `attack` as prose: the strongest attacks, an example, the heads."""

from typing import TYPE_CHECKING

from wirework.commands.printing import print_paragraph, print_verdict
from wirework.view.visible_text import plain_lines, shown

if TYPE_CHECKING:
    from wirework.circuits.adversarial import AttackReport


def print_attack(report: "AttackReport") -> None:
    """Print the attacks that break the whole model, in paragraphs."""
    about = report.summary()
    broken = report.by_tokens or report.by_length
    print_verdict(
        f"the model's answers in {report.task} "
        + ("break on text that was read off its circuit" if broken else "withstand all attacks")
        + "; accuracy: 1.00 = always right; P: probability of the right answer of the two"
    )
    _print_part("Inserted tokens", about["by_tokens"])
    if (example := about["example"]) is not None:
        print("\nExample")
        for line in plain_lines(example["prompt"]).splitlines():
            print(f"    {line}")
        right, answer = shown(example["right"]), shown(example["model_says"])
        print_paragraph(
            f"Right is `{right}`, the model answers `{answer}`; P of `{right}`: {example['p']:.2g}",
            "  ",
        )
    _print_part("Longer context", about["by_length"])
    for number, head in enumerate(report.heads):
        _print_part("" if number else "Attention", head.words(f"head {head.name}"))
    _print_part("Pairs", report.pairs_in_words())
    print()


def _print_part(title: str, text: str) -> None:
    if title:
        print(f"\n{title}")
    print_paragraph(text, "  ")
