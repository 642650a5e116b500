"""Synthetic tasks that repeat themselves as a language model does: templates, near-copies, paraphrases, odd ones."""

import random
from collections.abc import Iterator
from itertools import accumulate

OPENINGS = (
    """
Write a short story about a|Write a poem about the|Explain in simple terms why the|What is the|Tell me what my
Describe the smell of the|Find out whether the|Check whether my|Translate the following sentence into|Give me a list of
Summarize the article about the|What did I say to my|Predict the exact number of|Play the song about the|Turn off the
How many people in my street own a|Who was the first person to see a|Is it possible to build a|Compare the|Name three
Create a recipe for a|Design an experiment that shows how a|Write a letter to the|Describe a day in the life of a
What would happen if a|Write a Python function that sorts the|Book a table for my|Call my|Remind me of the
Look at the picture of my|Why does my|Come up with five names for a|Write a short story about|How do I repair a
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
PARTS = (
    """
{a} {n}|{n}|{n} and the {n}|who {v} the {n}|in {p}|with the {n} of a {n}|on {d} at {h}|from my {n}|for a {a} {n}
without using the word {n}|that {v} a {a} {n} near {p}|when the {n} {v}|between {p} and {p}|by the {a} {n} of {p}
because {p} {v} the {n}|as if it were a {n}|before {d}|the {n} the {n} and the {n}|named {p}|after the {n} {v} {p}
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
HEADS = ["{n}", "{a} {n}", "{n} of {p}", "{a} {a} {n}"]


def _listed(text: str) -> list[str]:
    return text.split()


DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
SYLLABLES = _listed(
    "ba be bo da de di fa fe ga go ka ki la le li lo ma me mi na ne no pa pe ra re ri sa se ta te ti vo wa zu"
)
HAN = "我你他的是在有不了人这中大来上个国说们为子和地出道也时年得就那要下以生会自着去之过家学对可她里后"
ACCENTED = _listed("Überprüfe Größe naïve café déjà señor Ångström żółć Москва река напиши рассказ про кошку straße")


class _Zipf:
    """Words of falling frequency; the first noun is about one in a hundred, as in English."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.weights = list(accumulate(1 / (rank + 15) for rank in range(len(words))))
        self.drawn: list[str] = []

    def __call__(self, rng: random.Random) -> str:
        if not self.drawn:  # many at once take a tenth of the time
            self.drawn = rng.choices(self.words, cum_weights=self.weights, k=1_000)
        return self.drawn.pop()


def _made_up(rng: random.Random, number: int, ending: str = "") -> _Zipf:
    words: dict[str, None] = {}
    while len(words) < number:
        words["".join(rng.choices(SYLLABLES, k=rng.choice((2, 3, 3, 4)))) + ending] = None
    return _Zipf(list(words))


def tasks(seed: int) -> Iterator[str]:
    """Yield tasks without end; the same ones for the same seed, in every process."""
    rng = random.Random(seed)  # noqa: S311
    slots = {
        "n": _made_up(rng, 20_000), "a": _made_up(rng, 3_000, "ish"), "v": _made_up(rng, 4_000, "s"),
        "p": _made_up(rng, 10_000, "ville"), "d": _Zipf(DAYS), "h": _Zipf([str(hour) for hour in range(1, 25)]),
    }  # fmt: skip
    openings, recent = _Zipf(OPENINGS), [""] * 2_000

    def fill(part: str) -> str:
        return " ".join(slots[word[1]](rng) if word[0] == "{" else word for word in part.split())

    def parts(least: int, most: int) -> list[str]:
        return [fill(rng.choice(PARTS)) for _ in range(rng.randint(least, most))]

    count = 0
    while True:
        kind = rng.random()
        old = recent[rng.randrange(len(recent))]
        if kind < 0.80 or not old:
            text = f"{openings(rng)} {fill(rng.choice(HEADS))} {' '.join(parts(1, 4))}."
        elif kind < 0.88:  # a near-copy
            words = old.split()
            for _ in range(rng.randint(1, 3)):
                place = rng.randrange(len(words))
                words[place : place + rng.randint(0, 1)] = [slots["n"](rng)] * rng.randint(0, 1)
                words = words or ["Again"]
            text = " ".join(words)
        elif kind < 0.90:  # the same but for case and signs
            text = old.upper().rstrip(".") + "!"
        elif kind < 0.92:  # the same words in another order
            words = old.split()
            cut = rng.randrange(len(words))
            text = " ".join(words[cut:] + words[:cut])
        elif kind < 0.96:  # 1 to 5 words, often repeated ones
            text = " ".join(slots[rng.choice("nnavp")](rng) for _ in range(rng.randint(1, 5)))
            text = f"{text} {text}" if rng.random() < 0.2 else text
        elif kind < 0.98:
            text = "".join(rng.choices(HAN, k=rng.randint(4, 30))) + "。"
        elif kind < 0.99:
            text = " ".join(rng.choices(ACCENTED, k=3) + parts(1, 3))
        else:  # up to some 120 words
            text = f"{openings(rng)} {fill(rng.choice(HEADS))} {' '.join(parts(8, 28))}."
        recent[count % len(recent)] = text
        count += 1
        yield text
