"""Words next to a number that do not change its value.

Behind a number any noun or adjective may stand ("18 eggs", "5 dollars per day"), unless a word is of one of a few
closed kinds that change what is stated: numerals and fractions, operations, comparisons, negations, alternatives.
Before a number what may change its value is without end ("twice", "the square root of", "fewer than"), so that a closed
list is allowed there instead: right before it, articles and the like apart, must stand a word that states ("is",
"makes", "a total of").
"""

from __future__ import annotations

import re

from .latex import wordset

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

_SMALL = wordset("one two three four five six seven eight nine ten eleven twelve")
_NUMERALS = wordset(
    "zero thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
    "eighty ninety hundred hundreds thousand thousands million millions billion billions trillion trillions lakh "
    "lakhs crore crores k mil mln mn mm-dollars mio mrd bn tn tr dozen dozens gross score scores pair pairs half "
    "halves quarter quarters thirds fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths "
    "halved tripled doubled quadrupled doubles triples twofold threefold fourfold tenfold fold "
    "binary octal hexadecimal "
    # the same in other languages
    "tausend millionen milliarde milliarden dutzend halb halbe einhalb mille millier milliers milliard milliards "
    "douzaine douzaines demi demie millón millon millones docena docenas medio media milhão milhões meio meia mila "
    "milioni milione miliardi migliaia mezzo тысяча тысячи тысяч миллион миллиона миллионов миллиард миллиарда "
    "миллиардов дюжин половиной"
)
_SCALED = re.compile("[十百千万萬億亿兆半倍余餘多分割折打천만억조반배]")  # signs of number words that need no blanks
_OPERATIONS = wordset(
    "plus minus multiplied divided squared cubed cube root roots sqrt cbrt power powers exponent factorial "
    "factorials log logarithm ln lg sin sine cos cosine tan tangent sec csc cot exp pi tau modulo mod remainder "
    "raised choose reversed backwards rounded infinity radians-over th-power reciprocal inverse itself"
)
_NEGATIONS = wordset(
    "not neither nor without except excluding unless cannot wrong incorrect false unlike instead never unknown "
    "impossible invalid incorrectly mistaken"
)
_DOUBTS = wordset("or either versus vs maximum minimum max min least most onwards upwards")
_CHANGING = _NUMERALS | _OPERATIONS | _DOUBTS
_OF = (["out", "of"], ["short", "of"])
# A small numeral changes the number only behind these: "5 and two thirds", "5 less than ten", "5 short of ten".
_BEFORE_SMALL = wordset("base and point to by than times over under below from into")
_NOT_THE_ANSWER = wordset("right correct answer true possible valid work works fit fits")
_BEYOND = wordset("up upwards above over beyond more under below less fewer older younger later earlier")
_LETTERS = wordset("a m g l L h s C F W V")  # the article and units; other single letters are variables
UNIT_LETTERS = tuple(sorted(_LETTERS - {"a"}))
_TWO_LETTERS = wordset("of in at on is as he we so if it be do tv cd pm am an my us no go id pc vs km")
_ATTACHED = wordset(
    "st nd rd th mm cm dm km nm mg kg ml mL cl cL dl dL kl kL lb lbs oz ft in yd yds yr yrs hr hrs min mins sec "
    "secs ms am pm mph kph kmh gb mb kb Hz kHz MHz kW kWh Wh cal kcal cc pt qt gal mi ha sq cu pts pcs px cts deg"
)

_HARMLESS = wordset(
    "a an the only exactly just about approximately approx around roughly these those this that all still now "
    "also then so therefore thus hence finally altogether overall total totalling totaling extra additional "
    "remaining other another him them me you his her their its our my your usd us currently already precisely as "
    "there it "
    "in-total"
)
_STATING = wordset(
    "is are was were be been being am has have had do does did equals equal equaled answer answers result "
    "solution value number amount cost price sum average mean median mode profit area distance length width "
    "height volume perimeter speed rate age weight score time size count difference product quotient gcd lcm with "
    "in at for contains hence that's it's there's he's she's they're means meaning namely i.e approximately total "
    "totals subtotal final worth needs"
)
_COPULAS = wordset("is are was were be equals becomes gives get have has obtain")
_LEADING = wordset("so thus therefore hence then")
_VERBS = sorted(
    wordset(
        "get make take need spend cost earn pay use eat buy save give sell run weigh contain add work read walk "
        "drink drive travel receive produce hold lose win catch find gain charge collect pick write cover bake "
        "plant donate require carry leave score serve order grow keep finish become want bring drop play answer "
        "contribute remove raise wash paint watch complete fill climb swim fly deliver own count invite visit "
        "build create share learn study sleep gather harvest consume throw kick jump draw reach remain owe borrow "
        "lend burn cook sew knit clean hire rent deposit withdraw invest yield obtain conclude compute calculate "
        "show"
    )
)
_IRREGULAR = sorted(
    wordset(
        "got made took spent paid ate bought gave sold ran drank drove held lost won caught found wrote left grew "
        "kept became brought flew threw drew built slept swam wore sewed taken given eaten gotten known sent rode"
    )
)
_MEASURES = wordset(
    "total cost price amount average mean profit revenue rate speed length distance weight area perimeter volume "
    "height width age score discount balance salary budget savings income payment capacity tip bonus answer "
    "result"
)
_COMING = wordset(
    "equal equals equivalent comes come came amounts amount amounted adds add added sums sum evaluates simplifies "
    "reduces works boils rounds rounded converges totals leads corresponds translates up out down"
)


def _inflected(verb: str) -> tuple[str, ...]:
    stem = verb.removesuffix("e")
    plural = (
        verb[:-1] + "ies"
        if verb[-1] == "y" and verb[-2] not in "aeiou"
        else verb + ("es" if verb[-1] in "shx" else "s")
    )
    past = verb[:-1] + "ied" if verb[-1] == "y" and verb[-2] not in "aeiou" else stem + "ed"
    return verb, plural, past, stem + "ing", verb + verb[-1] + "ing"


_STATES = _STATING | {form for verb in _VERBS for form in _inflected(verb)} | set(_IRREGULAR)


def words_of(text: str) -> list[str]:
    """The words of a text, as they are written."""
    return [word.replace("’", "'") for word in _WORD.findall(text)]


def is_stated(before: str) -> bool:
    """Whether the words before a number state it, so that its value is what is meant."""
    # A full stop, colon or line's end before the number: nothing in front of it reaches it, but a negation.
    words = words_of(before)
    lower = [word.lower() for word in words]
    if any(word in _NEGATIONS or word.endswith("n't") for word in lower):
        return False
    lower = [word.lower() for word in words_of(re.split(r"[.:;!?\n](?=\s|$)|,\s", before)[-1])]
    while lower and lower[-1] in _HARMLESS:
        lower.pop()
    if not lower:
        return True
    if lower in (["add"], ["remove"]) or (
        lower[-1] in ("at", "with") and lower[-2:-1] in (["starting"], ["beginning"])
    ):
        return False
    if lower[-1] in ("in", "to") and len(lower) > 1 and lower[-2] in _SMALL | _NUMERALS:
        return False  # one in 17
    if lower[-1] == "of":
        return len(lower) > 1 and lower[-2] in _MEASURES
    if lower[-1] == "to":
        return len(lower) > 1 and lower[-2] in _COMING and (
            lower[-2] not in ("up", "out", "down") or (len(lower) > 2 and lower[-3] in _COMING | {"summed", "work"})
        )  # fmt: skip
    return lower[-1] in _STATES


def after_statement(text: str) -> str:
    """What a sentence states, without its beginning: "The area is 25" -> "25"; all other texts as they are."""
    text = re.sub(
        r"^(?:(?:so|thus|therefore|hence|finally)\b[,:]?\s+|(?:[∴→⇒]|\\(?:therefore|implies|Rightarrow|to)\b)\s*)+(?=\S)",
        "",
        text,
        flags=re.IGNORECASE,
    )
    if (match := re.match(r"\\text(?:bf|rm)?\s*\{([^{}]*)\}\s*(?=\S)", text)) and is_stated(match[1]):
        words = words_of(match[1].lower())
        is_over = match[1].rstrip().endswith(("=", ":"))
        if words and (is_over or words[-1] in _LEADING or (words[-1] in _COPULAS and len(words[0]) > 1)):
            return text[match.end() :]
    match = re.match(r"((?:[A-Za-z][A-Za-z'’,]*\s+){1,12})(?=[\\\d($√π\[{-]|[A-Za-z]\s*[=<>(^+*/-])", text)
    if match and words_of(match[1])[-1].lower() in _COPULAS and is_stated(match[1]):
        return text[match.end() :]
    return text


def is_noun(after: str) -> bool:
    """Whether the words behind a number only name what is counted."""
    words = words_of(after)
    if not words:
        return True
    lower = [word.lower() for word in words]
    for place, (word, plain) in enumerate(zip(words, lower, strict=True)):
        previous = lower[place - 1] if place else ""
        if plain == "min" and place == 0:
            continue  # minutes, not the least
        if previous == "than" and plain in ("twice", "thrice", "double", "triple"):
            return False
        if (
            plain in _CHANGING
            or _SCALED.search(plain)
            or plain.endswith(("illion", "illions"))
            or any(p in _NUMERALS for p in plain.split("-"))
        ):
            return False
        if (plain in _NEGATIONS or plain.endswith("n't")) and (
            not _NOT_THE_ANSWER.isdisjoint(lower) or (place < 4 and previous not in ("did", "who", "that", "who're"))
        ):
            return False
        if plain in _SMALL and (place == 0 or previous in _BEFORE_SMALL or lower[max(0, place - 2) : place] in _OF):
            return False
        if len(word) == 1 and word not in _LETTERS and not _is_counter(word) and previous not in ("degrees", "degree"):
            return False
    if lower[-1] in ("square", "cubic", "grand") or lower[0] in ("under", "below"):
        return False
    if _is_counter(words[0]):
        return True
    if lower[0] == "and" and len(lower) > 1 and lower[1] in _BEYOND:
        return False
    if len(words[0]) == 2 and lower[0] not in _ATTACHED | _TWO_LETTERS:
        return False
    is_attached = after[:1].isalpha()
    if is_attached and len(words[0]) == 1 and (words[0] == "a" or (len(words) > 1 and words[0] in "mM")):
        return False  # 5a; "5m people": metres or millions?
    return (
        not is_attached
        or len(words[0]) == 1
        or len(words[0]) > 3
        or words[0] in _ATTACHED
        or words[0].lower() in _ATTACHED
    )


def _is_counter(word: str) -> bool:
    """Whether it is of a script without blanks, where what is counted stands right behind the number: 17元."""
    return "\u3040" <= word[0] <= "\u9fff" or "가" <= word[0] <= "힣"


_NAMED = wordset("so that where then let and if gives")
_NAMING = wordset(
    "so thus therefore hence then we get have obtain find value of the that is where let solution solutions "
    "unique when answer variable unknown number and if for gives final a"
)


def is_name(side: str) -> bool:
    """Whether what stands before "=" names the value behind it, or is a sum of numbers: "x", "Total", "9 * $2"."""
    words = [word.lower() for word in words_of(side)]
    if any(word in _NEGATIONS or word.endswith("n't") for word in words):
        return False
    if re.fullmatch(r"\s*(?:P|Pr|E)\s*\(.*\)\s*|\s*[fghPQ]\s*\(\s*-?[\d.]+\s*\)\s*", side):
        return True
    side = re.sub(r"(?<=[\d\w)])\s+[xX]\s+(?=[$€£¥₹(]?[\d.])", " * ", side)  # a sign of multiplication
    match = re.search(r"(?:\b(\w+)\s+|[,:;]\s*)[^\W\d_](?:_\w+|')?\s*$", side)
    if match and (match[1] is None or match[1].lower() in _STATES | _NAMED):
        return True
    if match := re.fullmatch(r"\s*(?P<words>(?:[^\W\d_]{2,}[\s,]+|a\s+)*)[^\W\d_](?:_\{?\w+\}?|')?\s*", side):
        return all(word in _NAMING for word in map(str.lower, match["words"].replace(",", " ").split()))
    # A letter among numbers: 3a.
    return not re.search(
        r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])", re.sub(r"(?<=\s)a(?=\s)|['’]s\b|\bI(?=\s+[a-z])", " ", side)
    )


# --- units, for mathematics

_SAME_UNITS = {
    name: unit
    for unit, names in {
        "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
        "g": "gram gramme", "kg": "kilogram kilo", "mg": "milligram", "l": "liter litre", "ml": "milliliter millilitre",
        "in": "inch inche", "ft": "foot feet", "yd": "yard", "mi": "mile", "lb": "pound", "oz": "ounce",
        "s": "second sec", "min": "minute", "h": "hour hr", "%": "percent percentage",
        "$": "dollar usd", "€": "euro eur", "£": "gbp", "¥": "yen jpy", "₹": "rupee inr",
        "°": "degree deg",
        "sq": "square", "cu": "cubic", "cent": "¢",
    }.items()
    for name in names.split()
}  # fmt: skip


def is_unit(words: str) -> bool:
    """Whether the words behind a number of mathematics are its unit: "cm", "square units", "degrees Celsius"."""
    bare = re.sub(r"\^-?\d|[/*.,]", " ", words)
    if bare.strip() in ("st", "nd", "rd", "th"):
        return False
    if re.search(r"[^\w\s'’()°¢-]|\d", bare):
        return False
    letters = [word for word in bare.split() if len(word) == 1]
    if any(letter == "k" or letter.lower() not in "mglshckfwvn" for letter in letters):
        return False
    return bool(bare.split()) and (len(bare.split()) == len(letters) or is_noun(" " + re.sub(r"\b\w\b", "", bare)))


def same_unit(left: str, right: str) -> bool:
    """Whether two units are one: "cm^2" and "square centimeters"."""
    return _unit(left) == _unit(right)


def unit_letters(text: str) -> tuple[str, ...]:
    """The single letters by which parts of a unit are written: ("m", "s") for "meters per second"."""
    parts = _unit(text)
    return tuple(letter for letter in UNIT_LETTERS if letter.lower() in parts)


def _unit(text: str) -> tuple[str, ...]:
    spread = re.sub(
        r"([%°$€£¥₹])", r" \1 ", text.lower().replace("mph", "mi/h").replace("kph", "km/h").replace("/", " per ")
    )
    parts = []
    for word in re.findall(r"\^-?\d|[^\W\d]+|[%°$¢€£¥₹]", spread):
        singular = word.removesuffix("s") if len(word) > 2 else word
        parts.append(_SAME_UNITS.get(word) or _SAME_UNITS.get(singular, singular))
    powers = {"^2": "sq", "^3": "cu"}
    for place, part in enumerate(parts):
        if part in powers and place:
            parts[place - 1 : place + 1] = [powers[part], parts[place - 1]]
    return tuple(parts)
