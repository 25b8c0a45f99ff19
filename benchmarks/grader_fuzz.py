r"""How often is the math grader wrong? Golds of MATH-500 against themselves rewritten, and against others.

    OMP_NUM_THREADS=1 python benchmarks/grader_fuzz.py FOLDER [--out FILE] [--formulas N] [--max-pairs N]

FOLDER holds `test.jsonl` with an `answer` a line (MATH-500; MATH: Hendrycks et al. 2021, MIT licence). Three
questions, each with a share, its n and a 95% Wilson interval:

- `rewritten`: each gold in some 25 other spellings of the same thing; every verdict but right is an error.
- `pairs`: every two golds of different spelling; right is an error unless the judge finds them the same.
- `mutated`: each gold with one sign, digit, letter or bracket changed, dropped or added; right is an error unless
  the judge finds both the same.

With `--formulas N`: N formulas drawn from the solutions' `$…$` in place of the golds, as texts that the grader was not
written for.

The judge is none of the grader's code: sympy's own parser of plain expressions behind a few substitutions, equality by
`simplify` or by numbers at three points to 30 digits; where it cannot read a text, only the same text without blanks is
the same. Whatever the grader calls right and the judge does not is in the file, to be looked at.

Any version of the grader can be asked: the script uses `forethought.core.registry` alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# --- the same in other words

_COMMAND = r"\\[a-zA-Z]+"
_SIMPLE_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_BARE = re.compile(r"\\text|\\mbox|\\begin|[,=<>{}\[\]]|\\(?:pm|in|cup|circ|%|\$)|\\[{}]|_")


def _tight(gold: str) -> str:
    return gold if "\\text" in gold or "mbox" in gold else re.sub(rf"({_COMMAND})? +(?=([a-zA-Z])?)", _kept, gold)


def _kept(match: re.Match[str]) -> str:
    return (match[1] or "") + (" " if match[1] and match[2] else "")


def _loose(gold: str) -> str:
    return (
        gold if "\\text" in gold or "begin" in gold else re.sub(r"(?<=[\w})])\s*([-+=])\s*(?=[\w\\(])", r"  \1  ", gold)
    )


def _braced(gold: str) -> str:
    gold = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", gold)
    gold = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", gold)
    return re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", gold)


def _unicode(gold: str) -> str:
    if "\\text" in gold:
        return gold
    for command, sign in (
        (r"\pi", "π"), (r"\infty", "∞"), (r"\cup", "∪"), (r"\in ", "∈ "), (r"\pm", "±"), (r"^\circ", "°"), ("-", "−"),
        (r"\cdot", "·"), (r"\theta", "θ"), (r"\le ", "≤ "),
    ):  # fmt: skip
        gold = gold.replace(command, sign)
    gold = re.sub(r"\\sqrt\s*\{?(\d+)\}?", r"√\1", gold)
    gold = re.sub(r"\^(?:\{(\d+)\}|(\d))", lambda m: _digits(m[1] or m[2], "⁰¹²³⁴⁵⁶⁷⁸⁹"), gold)
    return re.sub(r"_(?:\{(\d+)\}|(\d))", lambda m: _digits(m[1] or m[2], "₀₁₂₃₄₅₆₇₈₉"), gold)


def _digits(digits: str, signs: str) -> str:
    return "".join(signs[int(one)] for one in digits)


def _plain(gold: str) -> str:
    if re.search(r"\\text|\\begin|\\mbox|_|\\\{", gold):
        return gold
    gold = re.sub(r"(?<![\d}])(\d+)\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1 \2/\3", _braced(gold))
    gold = re.sub(r"\\sqrt\s*\{([^{}]+)\}", r"sqrt(\1)", gold)
    gold = re.sub(r"\^\{([^{}]+)\}", r"^(\1)", gold)
    gold = re.sub(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}", r"((\1)/(\2))", gold)
    return re.sub(r"\\left|\\right|\\!\s*", "", gold.replace(r"\pi", "pi"))


def _power_stars(gold: str) -> str:
    return gold.replace("^", "**") if _BARE.search(gold) is None else gold


def _reordered(gold: str) -> str:
    if _BARE.search(gold) or "(" in gold:
        return gold
    terms = re.findall(r"[-+]?[^-+]+", gold)
    if len(terms) < 2:
        return gold
    return " ".join(term if term[0] in "-+" else f"+ {term}" for term in reversed(terms)).removeprefix("+ ")


def _factors_swapped(gold: str) -> str:
    match = re.fullmatch(r"(\d+)\s*(\\sqrt\s*(?:\d|\{\d+\})|\\pi)", gold)
    return rf"{match[2]} \cdot {match[1]}" if match else gold


def _decimal(gold: str) -> str:
    match = _SIMPLE_FRACTION.fullmatch(gold) or re.fullmatch(r"()(?!)", gold)
    if not match:
        return gold
    value, rest = int(match[1]) / int(match[2]), int(match[2])
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return f"{value:.12f}".rstrip("0") if rest == 1 else gold


def _negative_moved(gold: str) -> str:
    match = re.fullmatch(r"-\\frac\{(\d+)\}\{(\d+)\}", gold)
    return rf"\frac{{-{match[1]}}}{{{match[2]}}}" if match else gold


def _thousands(gold: str) -> str:
    return rf"{int(gold):,}".replace(",", r"{,}") if re.fullmatch(r"\d{4,}", gold) else gold


def _without_unit(gold: str) -> str:
    bare = re.sub(r"\s*(?:\^\\circ|\\(?:text|mbox)\{[^{}]*\}(?:\^\d)?)$|^\\\$", "", gold)
    return bare if re.search(r"\d", bare) else gold


def _named(gold: str) -> str:
    return f"t = {gold}" if _BARE.search(gold) is None and "t" not in re.sub(_COMMAND, "", gold) else gold


def _text_bare(gold: str) -> str:
    match = re.fullmatch(r"\\text\{([^{}]*)\}", gold)
    return match[1] if match else gold


REWRITINGS: dict[str, Callable[[str], str]] = {
    "no blanks": _tight,
    "more blanks": _loose,
    "dfrac": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "tfrac": lambda gold: re.sub(r"\\d?frac", r"\\tfrac", gold),
    "left right": lambda gold: gold if "\\left" in gold or "\\text" in gold else re.sub(
        r"(?<!\\)([()\[\]])", lambda m: (r"\left" if m[1] in "([" else r"\right") + m[1], gold),
    "no left right": lambda gold: re.sub(r"\\left|\\right", "", gold),
    "boxed": lambda gold: rf"\boxed{{{gold}}}",
    "sentence with box": lambda gold: rf"Therefore, the answer is $\boxed{{{gold}}}$.",
    "dollars": lambda gold: f"${gold}$",
    "double dollars": lambda gold: f"$${gold}$$",
    "round marks": lambda gold: rf"\({gold}\)",
    "square marks": lambda gold: "\\[\n" + gold + "\n\\]",
    "full stop": lambda gold: f"{gold}.",
    "bold": lambda gold: f"**{gold}**",
    "backquotes": lambda gold: f"`{gold}`",
    "Answer:": lambda gold: f"Answer: {gold}",
    "final answer is": lambda gold: f"The final answer is ${gold}$.",
    "special token": lambda gold: f"{gold}<|im_end|>",
    "displaystyle": lambda gold: rf"\displaystyle {gold}",
    "braces": _braced,
    "Unicode": _unicode,
    "plain text": _plain,
    "two stars": _power_stars,
    "sum reordered": _reordered,
    "factors swapped": _factors_swapped,
    "decimal": _decimal,
    "sign moved": _negative_moved,
    "thousands": _thousands,
    "without unit": _without_unit,
    "named": _named,
    "words bare": _text_bare,
}  # fmt: skip


def rewritten(gold: str) -> Iterator[tuple[str, str]]:
    """(kind, text) for each rewriting that changes `gold`."""
    for kind, rewrite in REWRITINGS.items():
        if (text := rewrite(gold)) != gold:
            yield kind, text


# --- something else


def mutated(gold: str) -> Iterator[str]:
    """`gold` with one digit, letter, sign or bracket changed, dropped or added."""
    found: dict[str, None] = {}
    for position, one in enumerate(gold):
        before, after = gold[:position], gold[position + 1 :]
        is_command = re.search(r"\\[a-zA-Z]*$|\\(?:begin|end|text|mbox)\{[^}]*$", before) is not None or one == "\\"
        if one.isdigit():
            found[before + str((int(one) + 1) % 10) + after] = None
            found[before + one + one + after] = None
        elif one in "+-" and not is_command:
            found[before + {"+": "-", "-": "+"}[one] + after] = None
        elif one in "()[]" and not is_command:
            found[before + {"(": "[", ")": "]", "[": "(", "]": ")"}[one] + after] = None
        elif one.isalpha() and not is_command:
            found[before + ("b" if one == "a" else "a") + after] = None
            found[before + after] = None
    for command, other in (
        (r"\pi", "e"),
        (r"\sqrt", ""),
        (r"\cup", r"\cap"),
        (r"\pm", "+"),
        (r"\infty", "0"),
        (r"\cot", r"\tan"),
    ):
        if command in gold:
            found[gold.replace(command, other, 1)] = None
    tail = rf"{gold}!", f"{gold}+1", rf"{gold}\foo", f"-{gold}", f"2{gold}", rf"{gold} x", rf"{gold}^2", rf"{gold}, 7"
    found.update(dict.fromkeys(tail))
    yield from (text for text in found if text != gold)


# --- the judge


def judged_same(left: str, right: str) -> bool:
    """Whether two golds are the same thing, by sympy's parser and numbers; False where it cannot read one."""
    ours, theirs = _tidy(left), _tidy(right)
    if ours == theirs:
        return True
    if sorted(re.split(r",", ours)) == sorted(re.split(r",", theirs)) and not re.search(r"[()\[\]]", ours + theirs):
        return True
    parts, others = _parts(ours), _parts(theirs)
    if len(parts) != len(others) or (parts and (parts[0], parts[-1]) != (others[0], others[-1]) and len(parts) > 1):
        return False
    pairs = zip(parts, others, strict=True)
    return all(one == other or _same_value(one, other) for one, other in pairs)


def _tidy(text: str) -> str:
    text = re.sub(
        r"\\left|\\right|\\!|\\,|\\;|\\ |\\\$|\$", "", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    )
    text = re.sub(r"\^\{?\\circ\}?", "", text)
    text = re.sub(
        r"\\(?:text|mbox)\s*\{\s*([^{}]*)\s*\}(?:\^2)?",
        lambda m: "" if re.search(r"degree|cent|inch|cm", m[1]) else m[1],
        text,
    )
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
    text = re.sub(r"\s+", "", text).removeprefix("=")
    # 00, 1!, 2!, 1^2, 0x and [-∞ are spelled otherwise, and mean the same.
    text = re.sub(r"(?<!\d,)(?<![\d.])0+(?=\d)", "", text).replace(r"[-\infty", r"(-\infty")
    return re.sub(r"(?<![\d.^_{}])([12])!$|(?<![\d.^_])([01])\^2$|(?<![\d.^_])(0)x$", r"\1\2\3", text)


def _parts(text: str) -> list[str]:
    if re.search(r"\\begin|\\\{|\\cup|\\in", text) or not re.search(r"^[(\[].*,.*[)\]]$", text):
        return [text]
    return [text[0], *text[1:-1].split(","), text[-1]]


def _same_value(left: str, right: str) -> bool:
    import sympy

    try:
        values = [_value(side) for side in (left, right)]
        symbols = sorted(values[0].free_symbols | values[1].free_symbols, key=str)
        for start in (7, 11, 13):
            point = {symbol: sympy.Rational(start + 3 * place, 5) for place, symbol in enumerate(symbols)}
            if abs((values[0] - values[1]).subs(point).evalf(30)) > 1e-20 * (1 + abs(values[1].subs(point).evalf(30))):
                return False
        return True
    except Exception:
        return False


def _value(text: str) -> Any:
    from sympy.parsing.sympy_parser import convert_xor, implicit_multiplication, parse_expr, standard_transformations

    text = re.sub(r"^(?:x|y)=", "", text)
    if re.search(r"\d,\d{3}(?:,\d{3})*$", text):
        text = text.replace(",", "")
    text = re.sub(r"(?<![\d}])(\d+)\\frac\{(\d+)\}\{(\d+)\}", r"(\1+\2/\3)", text)
    while (new := re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)) != text or (
        new := re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", text)
    ) != text:
        text = new
    text = text.replace(r"\pi", "(pi)").replace(r"\cdot", "*").replace("{", "(").replace("}", ")")
    if re.search(r"[\\=_|%!]|pm", text):
        raise ValueError(text)
    names = {
        letter: __import__("sympy").Symbol(letter) for letter in "abcdfghjklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    }
    text = (
        re.sub(r"(?<![a-z])([a-zA-Z])(?=[a-zA-Z])(?!qrt|i\))", r"\1*", text)
        if "sqrt" not in text and "pi" not in text
        else text
    )
    transformations = (*standard_transformations, implicit_multiplication, convert_xor)
    return parse_expr(text.replace("i", "I") if "pi" not in text else text, names, transformations=transformations)


# --- counting


def share(num_errors: int, num_cases: int) -> dict[str, Any]:
    """A share with its 95% Wilson interval."""
    if not num_cases:
        return {"errors": 0, "n": 0}
    z, p = 1.959964, num_errors / num_cases
    middle, scale = p + z * z / (2 * num_cases), 1 + z * z / num_cases
    spread = z * math.sqrt(p * (1 - p) / num_cases + z * z / (4 * num_cases**2))
    low, high = max(0.0, (middle - spread) / scale), (middle + spread) / scale
    return {"errors": num_errors, "n": num_cases, "share": p, "interval": [low if num_errors else 0.0, high]}


def fuzz(golds: list[str], grade: Callable[[str, str], str], *, max_pairs: int, max_mutated: int) -> dict[str, Any]:
    """The three questions of this file's head, asked of `grade(answer, reference) -> verdict`."""
    unreadable = [gold for gold in golds if grade(gold, gold) != "right"]
    found: dict[str, Any] = {"golds": len(golds), "unreadable_golds": unreadable}
    verdicts: Counter[str] = Counter()
    missed: list[list[str]] = []
    kinds: dict[str, Counter[str]] = {}
    for gold in golds:
        for kind, text in rewritten(gold):
            verdict = grade(text, gold)
            verdicts[verdict] += 1
            kinds.setdefault(kind, Counter())[verdict] += 1
            if verdict != "right":
                missed.append([kind, text, gold, verdict])
    cases = sum(verdicts.values())
    found["rewritten"] = {
        **share(cases - verdicts["right"], cases),
        "wrong": share(verdicts["wrong"], cases),
        "unreadable": share(verdicts["unreadable"], cases),
        "by_kind": {kind: dict(counts) for kind, counts in kinds.items()},
        "missed": missed[:200],
    }
    spread = random.Random(0)
    pairs = list(itertools.combinations(golds, 2))
    changes = [(text, gold) for gold in golds for text in mutated(gold)]
    for name, cases_of, most in (("pairs", pairs, max_pairs), ("mutated", changes, max_mutated)):
        if len(cases_of) > most:
            cases_of = spread.sample(cases_of, most)
        right = [pair for pair in cases_of if grade(*pair) == "right"]
        same = [pair for pair in right if judged_same(*pair)]
        false = [pair for pair in right if pair not in set(same)]
        found[name] = {
            **share(len(false), len(cases_of) - len(same)),
            "same_by_the_judge": len(same),
            "called_right": false[:200],
        }
    return found


def formulas(solutions: Iterator[str]) -> list[str]:
    """The different formulas between dollar signs, of 60 characters at most; neither prose nor two answers in one."""
    found = (one.strip(" .,;") for text in solutions for one in re.findall(r"(?<!\\)\$([^$\n]{1,60})(?<!\\)\$", text))
    return sorted({one for one in found if one and not re.search(r"(?<![\\a-zA-Z])[A-Za-z]{3,}|[?~`\"]", one)})


def main() -> None:
    """Reads the arguments, runs, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--formulas", type=int, default=0)
    parser.add_argument("--max-pairs", type=int, default=10**9)
    parser.add_argument("--max-mutated", type=int, default=10**9)
    options = parser.parse_args()
    from forethought.core.registry import resolve

    lines = (options.folder / "test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    golds = list(dict.fromkeys(row["answer"] for row in rows))
    if options.formulas:
        golds = random.Random(1).sample(formulas(row["solution"] for row in rows), options.formulas)
    grader = resolve("graders", "math")()
    start = time.monotonic()
    num_graded = itertools.count()

    def grade(answer: str, reference: str) -> str:
        next(num_graded)
        return str(grader.grade(answer=answer, reference=reference).value)

    found = fuzz(golds, grade, max_pairs=options.max_pairs, max_mutated=options.max_mutated)
    found = {
        "grader": "math",
        "version": getattr(grader, "version", "1"),
        "data": "MATH-500: " + ("formulas drawn from the solutions" if options.formulas else "distinct answers"),
        "seconds": round(time.monotonic() - start, 1),
        "verdicts": next(num_graded),
        **found,
    }
    grader.close()
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", "utf-8")
    print(text if not options.out else json.dumps({key: found[key] for key in ("golds", "seconds", "verdicts")}))


if __name__ == "__main__":
    main()
