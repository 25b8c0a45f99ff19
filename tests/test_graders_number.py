"""Grader `number`: what a short answer's one number is, and which texts state none."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.core.data import Grade
from forethought.graders import NumberGrader
from forethought.graders.number import bare_number, read_number

RIGHT, WRONG, UNREADABLE = Grade.RIGHT, Grade.WRONG, Grade.UNREADABLE

READINGS = {
    "18": 18,
    " 18\n": 18,
    "18.": 18,
    "007": 7,
    "+5": 5,
    "3.0": 3,
    ".5": Fraction(1, 2),
    "1,234": 1234,
    "$1,234.50": Fraction(2469, 2),
    "1,000,000 people": 10**6,
    "1\u202f000\u202f000": 10**6,
    "9999999999999999999999": 9999999999999999999999,
    "50%": 50,
    "18\\%": 18,
    "33 1/3%": Fraction(100, 3),
    "1/2": Fraction(1, 2),
    "2 1/2": Fraction(5, 2),
    "1½": Fraction(3, 2),
    "½": Fraction(1, 2),
    "\\frac{1}{2}": Fraction(1, 2),
    "-\\dfrac12": Fraction(-1, 2),
    "-3": -3,
    "−3": -3,
    "-$5": -5,
    "$-5": -5,
    "negative 5": -5,
    "1e5": 10**5,
    "1.5 x 10^3": 1500,
    "2·10⁻²": Fraction(1, 50),
    "5 thousand": 5000,
    "3.5 million dollars": 3_500_000,
    "٣": 3,
    "(5)": 5,
    "**18**": 18,
    "\\text{18 meters}": 18,
    "10 apples": 10,
    "100 cm^2": 100,
    "20 °C": 20,
    "1st": 1,
    "#18": 18,
    "18 (18 dollars)": 18,
    "3 + 4 = 7": 7,
    "x = 5": 5,
    "5 =": 5,
    "≈18": 18,
    "\\boxed{42}": 42,
    "\\boxed{1}, or rather \\boxed{\\frac{1}{2}}": Fraction(1, 2),
    "\\boxed{42": 42,
    "12 is wrong; the answer is 7.": 7,
    "Answer: 3. No, the answer is: **4**": 4,
    "answer: 5\n#### 5": 5,
}
NO_READINGS = {
    "blank": ["", " ", "-", ".", "%", "\\boxed{}"],
    "words": ["seven", "no number", "H2O", "18 dollars and 5 cents", "5k", "$5K"],
    "several": ["12 or 13", "3, 4", "3 and 4", "{1, 2}", "12-13"],
    "separators": ["1,23", "12,34", "1.234.567", "0.1.2"],
    "not worked out": [
        "2^5",
        "2π",
        "3x",
        "5/x",
        "√2",
        "\\sqrt{2}",
        "5!",
        "5 - 3",
        "2 x 3 x",
        "<5",
        "~18",
        "5 ± 1",
        "x_1",
        "x+1",
        "1+x",
        "n - 2",
        "y/2",
    ],
    "sign or dash": ["- 5 apples", "--5"],
    "date or time": ["10:30", "2024-01-02", "1/2/2024"],
    "beyond size": ["1/0", "1e400", "1e999999999", "9" * 101],
}


@pytest.mark.parametrize("text", READINGS)
def test_a_number_is_read(text):
    assert read_number(text) == READINGS[text]


@pytest.mark.parametrize("kind", NO_READINGS)
def test_what_states_no_one_number_has_no_reading(kind):
    assert {text: read_number(text) for text in NO_READINGS[kind]} == dict.fromkeys(NO_READINGS[kind])


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("18", "18", RIGHT),
        ("$18.00", "18", RIGHT),
        ("17", "18", WRONG),
        ("-18", "18", WRONG),
        ("18 or 19", "18", UNREADABLE),
        ("", "18", UNREADABLE),
        ("18", "eighteen", UNREADABLE),
        ("50%", "50", RIGHT),
        ("50%", "0.5", WRONG),
        ("0.333333", "1/3", RIGHT),
        ("0.333", "1/3", WRONG),
        ("1000001", "1000000", WRONG),
        ("1000000.5", "1000000", RIGHT),
        ("0.0000001", "0", WRONG),
        ("1,234,567", "1234567", RIGHT),
    ],
)
def test_number_verdicts(answer, reference, verdict):
    assert NumberGrader().grade(answer=answer, reference=reference) is verdict


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_any_whole_number_is_read_in_any_dress(number):
    dresses = [f"{number}", f"{number:,}", f"**{number}**", f"\\boxed{{{number}}}", f"The answer is ${number:,}.00."]
    assert [read_number(dress) for dress in dresses] == [number] * 5


@settings(deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_any_fraction_is_read_exactly(numerator, denominator):
    assert read_number(f"{numerator}/{denominator}") == Fraction(numerator, denominator)


# --- what changes a value, and what does not

CHANGED = [
    "three times 5",
    "half of 10",
    "5 dozen",
    "cube root of 8",
    "log 5",
    "5 cubed",
    "no more than 5",
    "more than 5",
    "5K",
    "5 B",
    "5 lakh",
    "5 crore",
    "a third of 9",
    "5 to the power of 2",
    "5 factorial",
    "over 9000",
    "up to 5",
    "5 or more",
    "5+",
    "5 and three quarters",
    "a pair of 5",
    "double 5",
    "10 mod 3",
    "5 bn",
    "5 mil",
    "3 score",
    "5 gross",
    "5th root of 32",
    "5 point five",
    "5 over 2",
    "5 over two",
    "under 5",
    "nearly not 5",
    "never 5",
    "isn't 5",
    "is not 5",
    "the answer is not 5",
    "not equal to 5",
    "5 is wrong",
    "5 or so more or less",
    "ln(5)",
    "cos 5",
    "5 pi",
    "5pi",
    "5i",
    "5 i",
    "5 e",
    "5e",
    "5a",
    "5 t",
    "5^",
    "5 plus two",
    "5 minus one",
    "5 times two",
    "5 times x",
    "less than 5",
    "greater than 5",
    "5 hundred thousand",
    "5 hundred and two",
    "between 4 and 6",
    "5 million and a half",
    "1 in 5",
    "3 out of 5",
    "8 u^2",
    "8 ab^2",
    "8 ab",
    "3a=5",
    "5M",
    "5 M",
    "$5M",
    "$5m",
    "5 thirds",
    "5 halves",
    "2 to 1",
    "5 squared plus one",
    "the square of 5",
    "5 square",
    "negative of 5",
    "reciprocal of 5",
    "-(5)",
    "−(5)",
    "5!",
    "5!!",
    "5'",
    "|5|",
    "5 \\pm 1",
    "5\\%-6\\%",
    "x=5+y",
    "x != 5",
    "x ≠ 5",
    "x >= 5",
    "5 < x",
    "x \\ge 5",
    "x \\neq 5",
    "A_5",
    "5_8",
    "101_2",
    "f(5)",
    "5 mod 3",
    "5 (mod 7)",
    "five",
    "5 quintillion",
    "all but 5",
    "5 short of ten",
    "5 less than ten",
    "twenty 5",
    "one hundred 5",
    "5 under par",
    "5 and a quarter",
    "5 with a remainder",
    "2x = 5",
    "x + 1 = 5",
    "y - x = 5",
    "sin 30 = x/5",
    "5C2",
    "10 choose 5",
    "5 nCr 2",
    "x^5",
    "10^5",
    "at most 5",
    "fewer than 5",
    "exactly not 5",
    "5 doubled",
    "5 in base 8",
    "5 base 8",
    "5 (base 8)",
    "minus minus 5",
    "~5!",
    "3 pairs",
    "5 per cent of 20",
    "5% of 20",
    "20% off 5",
    "sum of 5 and itself",
    "5? No",
    "5 more than twice",
    "5 grand",
    "5 in binary",
    "5 base eight",
    "5万",
    "5万元",
    "5万平方公里",
    "5个半",
    "5億円",
    "5천 원",
    "5만",
    "5 Millionen",
    "5 Tausend",
    "5 et demi",
    "5 y medio",
    "5 millones",
    "5 mille",
    "5 тысяч",
    "5 миллионов",
    "5 тысяч рублей",
]

EIGHTEEN = [
    "18 eggs",
    "18 dollars per day",
    "Janet makes $18 every day at the farmers' market.",
    "She makes 18 dollars",
    "The total is 18",
    "Total: 18",
    "a total of 18",
    "He has 18 apples left.",
    "18 more eggs",
    "18 years old",
    "It takes 18 minutes.",
    "18 hours and",
    "So, the answer is 18.",
    "The answer is: $18.",
    "18 km/h",
    "18 mph",
    "18 square feet",
    "18 cubic inches",
    "18%",
    "18 percent",
    "$18.00",
    "USD 18",
    "18 USD",
    "€18",
    "18€",
    "18 times",
    "18 people in total",
    "Weng earned $18",
    "Betty needs $18 more to buy the wallet.",
    "18.0",
    "The final answer is $\\boxed{18}$.",
    "**Answer:** 18",
    "**18 eggs**",
    "Answer: \\$18",
    "18 miles per hour",
    "18 m",
    "18 g",
    "18cm",
    "18kg",
    "18 lbs",
    "18 sq ft",
    "18 ft",
    "18 yd",
    "18°",
    "18 degrees",
    "18 °F",
    "18 a day",
    "$18 a week",
    "= 18",
    "x = 18",
    "Total cost = $18",
    "9 * 2 = 18",
    "9 eggs * $2/egg = $18",
    "9 × 2 = 18",
    "9 x 2 = 18",
    "9 eggs x $2 = $18",
    "She will spend 18 hours on it",
    "They need 18 gallons of paint",
    "There are 18 students",
    "James pays $18",
    "Carla downloads for 18 minutes",
    "the number is 18",
    "equals 18",
    "is 18",
    "The value of x is 18",
    "18",
    "18 minutes each day",
    "18 of them",
    "18 left",
    "18 in all",
    "18 altogether",
    "approximately 18",
    "about 18",
    "\\( 18 \\)",
    "\\[ 18 \\]",
    "$$18$$",
    "The answer is\n\n18",
    "<answer>18</answer>",
    "<answer>\n18\n</answer>",
    "18</s>",
    "18<eos>",
    "18<|eot_id|>",
    "18<|endoftext|>",
    "18 <end_of_turn>",
    "18\n<|im_end|>\n<|im_start|>user\n5+5",
    "#### 18",
    "####18",
    "#### $18",
    "#### 18.",
    "#### 18\n\nQ: what is 2+2?\nA: 4",
    "The answer is 18.\n\nQuestion: what is 5?\nAnswer: 5",
    "18\n\nProblem: x",
    "\\boxed{18\\text{ eggs}}",
    "\\boxed{\\$18}",
    "\\boxed{18}.",
    "\\fbox{18}",
    "\\boxed 18.",
    "\\boxed  {18}",
    "Therefore, Janet makes \\boxed{18} dollars.",
    "18\n\nExplanation: 9*2 = 18",
    "Therefore the total is 18",
    "18 apples for one day",
    "18 slices of pizza",
    "It costs 18 dollars to buy",
    "18\\,\\text{cm}",
    "18\\text{ cm}^2",
    "18 \\mathrm{~cm}",
    "18\\ \\text{m/s}",
    "18 m/s",
    "18 m/s^2",
    "18 \\text{ units}",
    "18^\\circ",
    "18 units^2",
    "$18$ dollars",
    "$18$",
    "The correct answer is 18",
    "Final answer: 18",
    "final answer: **18**",
    "ans: 18",
    "Ans = 18",
    "A: 18",
    "答案是18",
    "答案：18。",
    "答案是 $18$",
    "so 18",
    "thus 18 eggs",
    "(18)",
    '"18"',
    "‘18’",
    "18;",
    "18,",
    "18 points",
    "18 quarts",
    "18 weeks",
    "18 two-d",
    "18 seconds",
    "18 nights",
    "18 minutes faster",
    "18 dollars less",
    "18 fewer",
    "18 pounds heavier",
    "Her age is 18",
    "She is 18 years old",
    "18min",
    "18 min",
    "18</answer>",
    "答案是18元",
    "18个",
    "18人",
    "18円",
    "18개",
    "18 Euro",
    "18 рублей",
    "18 Stück",
    "Tom was 18",
]

TEN_THOUSAND = [
    "10,\\!000",
    "10\\ 000",
    "10 000",
    "10\u2009000",
    "10\u202f000",
    "10\xa0000",
    "10~000",
    "10\\text{,}000",
    "10_000",
    "10'000",
    "10’000",
    "10ʼ000",
    "10{,}000",
    "10\\,000",
    "10\\;000",
    "1e4",
    "10,000.00",
    "$10,000",
    "\\$10{,}000",
    "10 thousand",
    "10.000e3",
    "10，000",
    "１００００",
    "10{,}\\!000",
    "10\\:000",
    "10\\!000",
    "10 000 dollars",
    "10\u2007000",
    "10`000",
    "10´000",
]

MILLIONS = [
    "1,234,567",
    "12,34,567",
    "1\u202f234\u202f567",
    "1 234 567",
    "1'234'567",
    "1_234_567",
    "1\\,234\\,567",
    "1{,}234{,}567",
    "1,\\!234,\\!567",
    "1~234~567",
]

NO_THOUSANDS = [
    "1,2345",
    "1,23",
    "12,345,67",
    "1 23",
    "1 2345",
    "10 00",
    "1,234 567",
    "1_23",
    "10.000,5",
    "1.234.567",
    "12 345 67",
]

MINUS_FIVE = [
    "- 5",
    "-5",
    "−5",
    "– 5",
    "\\(-5\\)",
    "minus 5",
    "negative 5",
    "-$5",
    "$-5$",
    "-5 dollars",
    "−5°C",
    "(-5)",
    "- $5",
    "-\\$5",
    "-5.0",
]


@pytest.mark.parametrize("text", CHANGED)
def test_what_changes_the_value_is_never_dropped(text):
    """Neither the number as it stands nor a 5 may be read out of these."""
    for digits in {*re.findall(r"\d+", text)[:1], "5"}:
        assert NumberGrader().grade(answer=text, reference=digits) is not RIGHT


@pytest.mark.parametrize("text", EIGHTEEN)
def test_units_nouns_and_announcements_are_dropped(text):
    assert read_number(text) == 18


@pytest.mark.parametrize("text", TEN_THOUSAND)
def test_thousands_in_the_spellings_of_the_world(text):
    assert read_number(text) == 10_000


@pytest.mark.parametrize("text", MILLIONS)
def test_several_groups_of_thousands(text):
    assert read_number(text) == 1_234_567


@pytest.mark.parametrize("text", NO_THOUSANDS)
def test_other_groups_of_digits_are_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize("text", MINUS_FIVE)
def test_a_sign_belongs_to_its_number(text):
    assert read_number(text) == -5


PLACES = {
    "She sells 9 eggs at $2. #### 18": 18,
    "#### 72\n\nQuestion: Tom has 3 apples.\nAnswer: 3 + 4 = 7\n#### 7": 72,
    "\\boxed 18": 18,
    "18<|im_end|>": 18,
    "18<｜end▁of▁sentence｜>": 18,
    "18<|im_end|>\n<|im_start|>user\nAnd 5?": 18,
    "<s> 18 </s>": 18,
    "18<end_of_utterance>": 18,
    "The final answer is 18. I hope it is correct.": 18,
    "### Final Answer\n\n18": 18,
    "\\boxed{\\boxed{18}}": 18,
    "The wrong answer is 18": None,
    "1,00,000": 100_000,
    "10\\mathord{,}000": 10_000,
    "$5$ cm$^2$": 5,
    "5 hundred": 500,
    "2 lakh": 200_000,
    "<think>Maybe 3.</think>18": 18,
    "Question: what is 9 * 2?\nAnswer: 18": 18,
    "x^2-25=0": None,
    "3a = 5": None,
    "2x = 10, x = 5": 5,
    "x + 1 = 6": None,
    "P(red) = 1/4": Fraction(1, 4),
}


@pytest.mark.parametrize("text", PLACES)
def test_where_the_answer_stands(text):
    assert read_number(text) == PLACES[text]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-1,234.5", Fraction(-2469, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("$5", 5),
        ("10\\,000", 10_000),
        ("2a", None),
        ("5 cm", None),
        ("101_2", None),
        ("5!", None),
        ("1e5", None),
        ("x = 5", None),
        ("1, 2", None),
    ],
)
def test_a_bare_number_has_nothing_around_it(text, number):
    assert bare_number(text) == number


@settings(deadline=None)
@given(st.integers(0, 10**6), st.text("abcdefghijklmnopqrstuvwxyz ", min_size=1, max_size=12))
def test_words_behind_a_number_never_make_another_of_it(number, words):
    assert read_number(f"{number} {words}") in (number, None)
