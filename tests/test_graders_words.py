"""Graders `exact` and `choice`: the same text, the same letter."""

from __future__ import annotations

import pytest

from forethought.core.data import Grade
from forethought.errors import InvalidSettingsError
from forethought.graders import ChoiceGrader, ExactGrader

RIGHT, WRONG, UNREADABLE = Grade.RIGHT, Grade.WRONG, Grade.UNREADABLE

# --- exact -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("Paris", "paris.", RIGHT),
        ("  New \n York ", "new york", RIGHT),
        ("**Paris**", "Paris", RIGHT),
        ("“Paris”", "'Paris'", RIGHT),
        ("\\boxed{Yes}", "yes", RIGHT),
        ("$x$", "\\(x\\)", RIGHT),
        ("ß", "ss", RIGHT),
        ("a b", "ab", WRONG),
        ("Paris, France", "Paris", WRONG),
        ("x", "", WRONG),
        ("!", "!", RIGHT),
        ("?", "!", WRONG),
        ("", "x", UNREADABLE),
        (" \n", "x", UNREADABLE),
    ],
)
def test_exact_verdicts(answer, reference, verdict):
    assert ExactGrader().grade(answer=answer, reference=reference) is verdict


SAME = [
    ("\\text{Paris}", "Paris"),
    ("\\textbf{Paris}", "paris"),
    ("it’s", "it's"),
    ("co‑op", "co-op"),
    ("co–op", "co-op"),
    ("Ｐａｒｉｓ", "Paris"),
    ("ﬁne", "fine"),
    ("café", "café"),
    ('"Paris"', "Paris"),
    ("`Paris`", "Paris"),
    ("Paris.", "Paris"),
    ("Paris!", "Paris"),
    ("New\xa0York", "New York"),
    ("$\\text{Paris}$", "Paris"),
    ("\\boxed{\\text{Paris}}", "Paris"),
    ("Paris<|im_end|>", "Paris"),
    ("Paris</s>", "Paris"),
    ("<answer>Paris</answer>", "Paris"),
    ("−5", "-5"),
    ("5\\%", "5%"),
    ("\\$5", "$5"),
    ("**Paris**.", "Paris"),
    ("\\mathrm{NaCl}", "NaCl"),
    ("“it’s”", "it's"),
    ("rock ’n’ roll", "rock 'n' roll"),
    ("\\mathbf{Yes}", "yes"),
    ("\\text{New York}", "New York"),
    ("\\textit{x}", "x"),
    ("\\(x\\)", "$x$"),
    ("Paris\u200b", "Paris"),
    ("#### Paris", "Paris"),
    ("'tis", "’tis"),
    ("\\operatorname{Paris}", "Paris"),
    ("\\text{New}~\\text{York}", "New York"),
    ("…", "..."),
    ("Ａ", "a"),
    ("Paris。", "Paris"),
    ("_Paris_", "Paris"),
    ("‹Paris›", "Paris"),
    ("P.", "P"),
    ("「東京」", "東京"),
    ("《三体》", "三体"),
    ("**Yes**!", "yes"),
]

DIFFERENT = [
    ("5!", "5"),
    ("-5", "5"),
    ("5%", "5"),
    ("x'", "x"),
    ("C#", "C"),
    ("C++", "C"),
    (".5", "5"),
    ("$5", "5"),
    ("*p", "p"),
    ("f(x)", "fx"),
    ("x²", "x2"),
    ("10²", "102"),
    ("a/b", "ab"),
    ("~5", "5"),
    ("!x", "x"),
    ("5'", "5"),
    ("½", "12"),
    ("H₂O", "h2ox"),
    ("(5", "5"),
    ("5+", "5"),
    ("+5", "5"),
    ("#5", "5"),
    ("@x", "x"),
    ("_x", "x"),
    ("n!", "n"),
    ("5?", "5"),
    ("co-op", "coop"),
    ("its", "it's"),
    ("[5]", "5"),
    ("-x", "x"),
    ("€5", "$5"),
    ("&x", "x"),
    (":5", "5"),
    ("x*", "x"),
    ("x**", "x"),
    ("--5", "-5"),
    ("5–6", "56"),
    ("1.5", "15"),
    ("1,5", "15"),
    ("?", "!"),
    ('"x', "x"),
    ("x.y", "xy"),
    ("$x", "x"),
    ("not x", "x"),
    ("Paris?", "Paris"),
    ("①", "1"),
    ("__init", "init"),
]


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_forms_of_one_text(answer, reference):
    assert ExactGrader().grade(answer=answer, reference=reference) is RIGHT


@pytest.mark.parametrize(("answer", "reference"), DIFFERENT)
def test_punctuation_that_means_something(answer, reference):
    assert ExactGrader().grade(answer=answer, reference=reference) is WRONG
    assert ExactGrader().grade(answer=reference, reference=answer) is WRONG


# --- choice ------------------------------------------------------------------------------------------------------

CHOICES = {
    "B": "B",
    "b": "B",
    " (b) ": "B",
    "B.": "B",
    "B) Paris": "B",
    "B: Paris": "B",
    "**B**": "B",
    "$B$": "B",
    "\\boxed{D}": "D",
    "\\boxed{\\text{D}}": "D",
    "option B": "B",
    "choice c": "C",
    "Answer is b.": "B",
    "The answer is (C).": "C",
    "the correct answer is option D) 12": "D",
    "I first thought (A), but the answer is B": "B",
    "A: yes": "A",
    "D 12": "D",
    "Plan B is good": None,
    "": None,
    "F": None,
    "BE": None,
    "a dog": None,
    "A dog": None,
    "The answer is a dog": None,
    "A or B": None,
    "(A) or (B)": None,
    "A, B": None,
    "Both A and B": None,
    "the answer is A or B": None,
    "O'B": None,
    "3": None,
}


@pytest.mark.parametrize("text", CHOICES)
def test_a_choice_is_read(text):
    assert ChoiceGrader().read(text) == CHOICES[text]


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [("(b)", "B", RIGHT), ("C", "B", WRONG), ("B or C", "B", UNREADABLE), ("B", "none", UNREADABLE)],
)
def test_choice_verdicts(answer, reference, verdict):
    assert ChoiceGrader().grade(answer=answer, reference=reference) is verdict


@pytest.mark.parametrize(
    ("text", "letter"), [("0", "A"), ("3.", "D"), ("4", None), ("-1", None), ("C", "C"), ("03", "D")]
)
def test_a_whole_number_may_be_a_choice(text, letter):
    assert ChoiceGrader(letters="ABCD", first_index=0).read(text) == letter


@pytest.mark.parametrize("letters", ["", "AA", "ab", "A1", "AÄ"])
def test_letters_must_be_different_capitals(letters):
    with pytest.raises(InvalidSettingsError, match="different capital letters"):
        ChoiceGrader(letters=letters)


CHOOSE_D = [
    "The best choice would be D",
    "∴ D",
    "D\n\nExplanation: because A is wrong",
    "D\n\nQuestion: next?\nAnswer: A",
    "答案是D",
    "答案：D",
    "正确答案是D。",
    "答案为D",
    "选D",
    "选择D",
    "故选D",
    "答案是选项D",
    "正解はD",
    "答えはDです",
    "정답은 D입니다",
    "정답: D",
    "La respuesta es D",
    "Respuesta: D",
    "La réponse est D",
    "Réponse : D",
    "Die Antwort ist D",
    "Die richtige Antwort lautet D",
    "Antwort: D",
    "Ответ: D",
    "Risposta: D",
    "La risposta corretta è D",
    "Resposta: D",
    "Đáp án: D",
    "Jawaban: D",
    "الإجابة: D",
    "उत्तर: D",
    "D\nbecause A is wrong",
    "D. Because A is wrong",
    "D because A is wrong",
    "D, because A and B are wrong",
    "D",
    "Answer: D\n\nExplanation: A is wrong",
    "**D**\n\nA is wrong.",
    "The answer is (D) since A is false",
    "I choose D",
    "D is correct",
    "It is D.",
    "Option D is correct",
    "The correct option is D",
    "The correct choice is (D).",
    "Answer: (D)",
    "answer: d",
    "D<|im_end|>",
    "\\boxed{(D)}",
    "\\boxed{\\text{(D)}}",
    "\\boxed D",
    "<answer>D</answer>",
    "Ｄ",
    "（D）",
    "【D】",
    "D：Paris",
    "D、Paris",
    "「D」",
    "(D) Paris",
    "D - Paris",
    "D – Paris",
    "#### D",
    "Final answer: D",
    "The final answer is D. I hope it is correct.",
    "D\n\nNote: B is close",
    "D\n\nReason: A",
    "The answer is D, not A",
    "My answer is D",
    "I'd go with D",
    "Therefore, D",
    "So the answer: D",
    "[D]",
    '"D"',
    "<D>",
    "D。",
    "Answer is D) 12",
    "correct answer D",
    "The answer would be D",
    "The answer should be D",
    "Answer - D",
    "Answer → D",
    "The answer is option (D)",
    "The answer is $D$",
    "The answer is \\textbf{D}",
    "It's D",
    "choice D",
    "the answer must be D",
    "The best answer is D.",
    "'D'",
    "__D__",
    "正确选项是D",
    "Ans - D",
    "A: wrong\nB: wrong\nC: wrong\nD: right\n\nAnswer: D",
    "A: D",
    "I'd say D.",
    "We would answer D",
    "Clearly D.",
    "Probably D.",
    "Definitely D!",
    "It would be D.",
    "That should be D.",
    "→ D",
    "=> D",
    "✓ D",
    "d: Paris",
    "d) Paris",
    "La respuesta correcta es la D",
    "Svar: D",
    "Vastaus: D",
    "The statement in D is correct.",
    "Among these, D is the best.",
    "Not A, not B. The answer is D.",
    "The answer is not A; the answer is D.",
    "A is wrong, so the answer is D",
    "There is no doubt the answer is D",
]

CHOOSE_NOTHING = [
    "Vitamin D",
    "vitamin D deficiency",
    "Plan D",
    "Type D",
    "Hepatitis D",
    "Grade D",
    "D or C",
    "Not D",
    "not (D)",
    "D is wrong",
    "D is not correct",
    "A vitamin D",
    "Group D",
    "Section D",
    "neither D nor C",
    "D minor",
    "Vitamin D.",
    "Class D",
    "The answer is Vitamin D",
    "D and C",
    "D/C",
    "3 D",
    "3D",
    "D-dimer",
    "the answer is not D",
    "Answer: not D",
    "The answer isn't D",
    "D's",
    "D+",
    "Mr. D",
    "The answer is either C or D",
    "D is incorrect",
    "Drop D",
    "Hexa D",
    "It is not D",
    "The answer cannot be D",
    "anything but D",
    "all except D",
    "Both C and D",
    "C, D",
    "the answer cannot be (D)",
    "D is close, but not correct",
    "D is tempting but wrong",
    "anything other than (D)",
    "rather than (D)",
    "instead of (D)",
    "D is definitely not the answer",
    "D is never right",
    "(D) fails",
    "So D is out.",
    "D as well as C",
    "Answer: D; C",
    "Vitamin D is the answer",
    "Answer: D major",
    "Answer: D++",
    "Answer: A cat",
    "The answer is A bird",
    "(D) is wrong",
    "(D) is incorrect",
    "(D) can be eliminated",
    "D is eliminated",
    "D is ruled out",
    "I would rule out (D)",
    "I don't think it's D",
    "I don't believe the answer is D",
    "I doubt it is D",
    "The wrong answer is D",
    "the incorrect option is D",
    "D = 5",
    "The answer is D?",
    "everything but (D)",
]


@pytest.mark.parametrize("text", CHOOSE_D)
def test_d_is_chosen(text):
    assert ChoiceGrader().read(text) == "D"


@pytest.mark.parametrize("text", CHOOSE_NOTHING)
def test_a_letter_that_is_no_choice(text):
    assert ChoiceGrader().read(text) is None


@pytest.mark.parametrize(
    ("text", "letter", "options"),
    [
        ("F", "F", {"letters": "ABCDEFGHIJ"}),
        ("The answer is H.", "H", {"letters": "ABCDEFGHIJ"}),
        ("答案是G", "G", {"letters": "ABCDEFGHIJ"}),
        ("I think J", "J", {"letters": "ABCDEFGHIJ"}),
        ("I", "I", {"letters": "ABCDEFGHIJ"}),
        ("(i)", "I", {"letters": "ABCDEFGHIJ"}),
        ("2", "C", {"first_index": 0}),
        ("The answer is 2", "C", {"first_index": 0}),
        ("option 2", "C", {"first_index": 0}),
        ("(2)", "C", {"first_index": 0}),
        ("2. Paris", "C", {"first_index": 0}),
        ("\\boxed{2}", "C", {"first_index": 0}),
        ("答案是2", "C", {"first_index": 0}),
        ("1", "A", {"first_index": 1}),
        ("0", "A", {"first_index": 0}),
    ],
)
def test_other_letters_and_labels(text, letter, options):
    assert ChoiceGrader(**options).read(text) == letter
