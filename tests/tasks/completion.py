"""What Python needs to read a prompt with an answer: the rest of its last statement."""

ENDINGS = {
    "set_or_string .add": "(item)",
    "set_or_string_fixedvarname .add": "(item)",
    "set_or_string +=": " item",
    "set_or_string_fixedvarname +=": " item",
    "final_kwarg =None": "):BODY",
    "final_kwarg ):": "BODY",
    "with_as as": " handle:BODY",
    "bracket_brace :": " valueCLOSE",
    "bracket_brace ,": " valueCLOSE",
    "with_open r": "CLOSE",
    "with_open w": "CLOSE",
    "for_while in": " items:BODY",
    "for_while :": "BODY",
    "else_elif :": "BODY",
    "fstring_brace {": 'item}", valueCLOSE',
    'fstring_brace ",': " valueCLOSE",
    "if_ternary :": "BODY",
    "if_ternary else": " value",
    "indent_for": " pass",
    "lambda_func :": " valueCLOSE",
    "lambda_func (": "):BODY",
    "if_equals ==": " value",
    "if_equals =": " value",
    "enumerate_range enumerate": "(items):BODY",
    "enumerate_range range": "(9):BODY",
    "var_if :": "BODY",
    "while_return_true :": "BODY",
}
"""By task and answer. BODY: an indented `pass` on the next line. CLOSE: whatever strings and
brackets are still open; not where closing them is the answer."""


def completed(name: str, prompt: str, answer: str) -> str:
    """Return a prompt with an answer and whatever makes the last statement whole."""
    last = prompt.splitlines()[-1]
    indent = last[: len(last) - len(last.lstrip())]
    ending = ENDINGS.get(f"{name} {answer.strip()}".strip(), "")
    if name == "else_elif" and answer != ":\n":
        ending = ":BODY"
    if name == "var_swap" and "= (" in last:
        ending = ")"
    if name == "enumerate_range" and not last.lstrip().startswith("for "):
        ending = ending.replace(":BODY", "CLOSE")
    if name == "if_equals" and last.lstrip().startswith(("if ", "while ")):
        ending += ":BODY"
    text = prompt + answer + ending.replace("BODY", f"\n{indent}    pass")
    text = text.replace("CLOSE", closers(text.removesuffix("CLOSE")))
    return text + (f":\n{indent}    pass\n" if name == "with_open" and "with " in last else "\n")


def closers(text: str) -> str:
    """Return what closes the string and the brackets that are open at the end of a text."""
    quote, brackets, comment = "", "", False
    for char in text:
        if comment:
            comment = char != "\n"
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            brackets = {"(": ")", "[": "]", "{": "}"}[char] + brackets
        elif char in ")]}":
            brackets = brackets[1:]
        else:
            comment = char == "#"
    return quote + brackets
