"""Prompts and answers by topic, and when the engine says each piece of an answer: all of it from seeds.

One topic is what an observer looks for, the others are what people ask besides. Answers are sentences of a small
grammar over a topic's words, cut into tokens: function words and short words are one, longer words several. Their times are those
of speculative decoding: a step gives one token and those of a draft that it agrees with, so that the text itself makes a
stream fast or slow. Nothing here is measured on a model; README.md states every parameter.
"""

import functools
import math
import random
import zlib
from dataclasses import dataclass

TARGET = "health"

STEP_S = 0.045
"""Time of one decoding step."""
STEP_SIGMA = 0.10
"""Spread of a step's time (lognormal)."""
LOAD_SIGMA = 0.10
"""Spread of how busy the engine is from one request to the next: it scales all times of a request."""
DRAFT = 3
"""Tokens that a step can give beyond its own."""
FUNCTION_AGREES, CONTINUATION_AGREES = 0.70, 0.55
"""How often a draft is right on a function word, and on the rest of a word that has begun."""
FIRST_S, FIRST_S_PER_BYTE, FIRST_JITTER_S = 0.060, 0.00015, 0.010
"""Time to the first token: for itself, for each byte of the prompt, and the mean of what a queue adds (exponential)."""
LENGTH_SIGMA, SHORTEST, LONGEST = 0.30, 20, 140
"""Spread of answers' lengths in tokens (lognormal), and their bounds."""


@dataclass(frozen=True)
class Topic:
    """What makes a topic's streams differ."""

    tokens: int
    """Median length of an answer, in tokens."""
    agrees: float
    """How often a draft is right on the beginning of one of the topic's words."""
    lists: float
    """Part of the sentences that are items of a list."""
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    qualities: tuple[str, ...]
    questions: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TOPICS = {
    "health": Topic(
        72, 0.15, 0.10,
        _words("symptoms inflammation antibiotics prescription diagnosis dosage hypertension biopsy infection specialist "
               "medication treatment fever screening cholesterol ultrasound immunity allergy rash surgery therapy clinic "
               "hormones bloodwork"),
        _words("indicates aggravates requires prevents suggests accompanies relieves complicates precedes follows"),
        _words("chronic persistent acute contagious benign severe bacterial recurrent elevated preventive"),
        ("I have had {q} {n} for weeks, what could it mean?", "Is {n} after {m} something to see a doctor about?",
         "Which {n} would you expect with {q} {m}?", "My doctor mentioned {q} {n}. Should I worry about {m}?",
         "How long does {n} last, and does it get worse with {m}?", "Can {n} be caused by {q} {m} or is it unrelated?")),
    "cooking": Topic(
        56, 0.55, 0.30,
        _words("onions garlic butter dough oven pan sauce flour lemon pepper basil stock rice beans salt oil skillet cream "
               "eggs sugar vinegar noodles crust broth"),
        _words("needs thickens browns melts goes sits cooks softens rises turns"),
        _words("fresh warm crisp soft golden salted smooth thin ripe slow"),
        ("How do I keep {n} from burning when I add {m}?", "What goes well with {q} {n} and {m}?",
         "Can I use {n} instead of {q} {m} for this dish?", "My {n} came out too {q}, was it the {m}?",
         "How long should {q} {n} rest before I add the {m}?", "Give me a quick dinner with {n} and {q} {m}.")),
    "travel": Topic(
        60, 0.50, 0.25,
        _words("train ticket hotel museum airport passport island ferry luggage beach itinerary market station harbour "
               "neighbourhood reservation bus castle border guide hostel terminal coast visa"),
        _words("leaves crosses opens reaches overlooks connects closes costs passes starts"),
        _words("cheap early scenic local crowded nearby quiet historic direct coastal"),
        ("Is it better to take the {n} or go by {m}?", "What is a {q} {n} near the {m} for two days?",
         "Do I need a {n} before I get to the {m}?", "How far is the {q} {n} from the {m}?",
         "Plan one day around a {q} {n} and the {m}.", "Can I leave my {n} at the {m} for a night?")),
    "code": Topic(
        64, 0.65, 0.35,
        _words("loop index string array buffer thread mutex parser iterator pointer callback exception query cache socket "
               "stack compiler regex struct module branch commit tuple closure"),
        _words("returns raises reads writes blocks copies holds calls drops parses"),
        _words("empty nested async mutable static null lazy local shared sorted"),
        ("Why does my {n} fail when the {m} is {q}?", "How do I turn a {q} {n} into a {m}?",
         "What is the difference between a {n} and a {q} {m}?", "Is it safe to share a {n} with a {q} {m}?",
         "Write a test for a {q} {n} that uses a {m}.", "My {n} is slow, would a {q} {m} help?")),
    "sport": Topic(
        52, 0.45, 0.15,
        _words("match coach season keeper league goal sprint marathon training stretch referee tournament pitch squad race "
               "tackle penalty champion podium relay serve tennis pace defence"),
        _words("wins loses beats scores trains plays runs leads misses draws"),
        _words("fast strong tired young steady late tough fit away final"),
        ("Who has the better {n} this year, and is the {m} {q}?", "How should I plan my {n} before a {q} {m}?",
         "Why was the {n} given after a {q} {m}?", "What makes a {q} {n} in a long {m}?",
         "How many {q} {n} days go with one {m}?", "Explain the rule on {n} when the {m} is {q}.")),
    "finance": Topic(
        64, 0.35, 0.15,
        _words("mortgage interest portfolio dividend savings insurance budget inflation pension bond invoice deduction "
               "broker equity collateral liquidity account loan deposit salary index currency rent audit"),
        _words("increases covers reduces exceeds offsets includes depends yields matures defers"),
        _words("annual fixed taxable volatile monthly nominal diversified insured overdue net"),
        ("Should I put my {n} into a {q} {m}?", "How does {n} change the {q} {m} that I pay?",
         "What is a {q} {n}, and is it better than a {m}?", "Does a {n} count against my {m} this year?",
         "How much {q} {n} do I need before I take a {m}?", "Explain how {n} and {q} {m} go together.")),
}

FRAMES = (
    "the {q} {n} often {v} the {m} , so it is best to look at both .",
    "in most cases {n} {v} when there is {q} {m} .",
    "you can ask about the {n} first , since it {v} what the {q} {m} does .",
    "if the {n} is {q} , the {m} {v} more than you would think .",
    "this {v} the {n} and , after some time , the {m} as well .",
    "a {q} {n} with {m} is not unusual , but it {v} some care .",
)
ITEMS = ("- {q} {n} : it {v} the {m} .\n", "- the {n} {v} , then the {m} .\n", "- no {m} without {q} {n} .\n")

FUNCTION = frozenset(_words(
    "the often so it is best to look at both in most cases when there you can ask about first since what does if more than "
    "would think this and after some time as well a with not unusual but care then no without , . - :"))
ONE_TOKEN = 7
"""Content words up to this length are one token."""


@dataclass(frozen=True)
class Prompt:
    """A question; `text` is unique."""

    topic: str
    text: str


@dataclass(frozen=True)
class Step:
    """What the engine sends at once, `after_s` the piece before."""

    after_s: float
    text: str
    tokens: int


def _fill(frame: str, topic: Topic, rng: random.Random) -> str:
    n, m = rng.sample(topic.nouns, 2)
    return frame.format(n=n, m=m, v=rng.choice(topic.verbs), q=rng.choice(topic.qualities))


def _questions(name: str, count: int, rng: random.Random) -> list[Prompt]:
    """Different questions of one to three sentences."""
    topic, found = TOPICS[name], {}
    while len(found) < count:
        text = " ".join(_fill(rng.choice(topic.questions), topic, rng) for _ in range(rng.choice((1, 1, 2, 3))))
        found[text] = Prompt(name, text)
    return list(found.values())


def prompts(per_class: int, seed: int) -> list[Prompt]:
    """As many of the target as of all others together, which have equal parts."""
    others = [name for name in TOPICS if name != TARGET]
    chosen = _questions(TARGET, per_class, random.Random(f"{seed} {TARGET}"))
    for place, name in enumerate(others):
        part = per_class // len(others) + (place < per_class % len(others))
        chosen += _questions(name, part, random.Random(f"{seed} {name}"))
    return chosen


@functools.cache
def topic_of(text: str) -> str:
    """The topic whose nouns a question has most of."""
    words = text.lower().replace(",", " ").replace("?", " ").replace(".", " ").split()
    return max(TOPICS, key=lambda name: sum(word in TOPICS[name].nouns for word in words))


def _pieces(word: str) -> list[str]:
    """A word as tokens: always the same ones, as a tokenizer has it."""
    if word in FUNCTION or len(word) <= ONE_TOKEN:
        return [word]
    size = 3 + zlib.crc32(word.encode()) % 3
    return [word[at:at + size] for at in range(0, len(word), size)]


def _tokens(topic: Topic, rng: random.Random):
    """Endless tokens, each with how often a draft is right on it."""
    while True:
        frame = rng.choice(ITEMS if rng.random() < topic.lists else FRAMES)
        for word in _fill(frame, topic, rng).split(" "):
            agrees = FUNCTION_AGREES if word.strip() in FUNCTION else topic.agrees
            for place, piece in enumerate(_pieces(word)):
                glued = place > 0 or piece.strip() in {",", ".", ":"}
                yield (piece if glued else " " + piece), (CONTINUATION_AGREES if place else agrees)


def answer(text: str, seed: int, max_tokens: int | None) -> list[Step]:
    """What the engine says to a question, the same for the same arguments.

    With `max_tokens` the answer has exactly that many, otherwise as many as its topic's answers have.
    """
    topic, rng = TOPICS[topic_of(text)], random.Random(f"{text} {seed}")
    natural = topic.tokens * math.exp(rng.gauss(0, LENGTH_SIGMA))
    left = max_tokens or round(min(max(natural, SHORTEST), LONGEST))
    load = math.exp(rng.gauss(0, LOAD_SIGMA))
    wait = (FIRST_S + FIRST_S_PER_BYTE * len(text)) * load + rng.expovariate(1 / FIRST_JITTER_S)
    tokens, steps = _tokens(topic, rng), []
    token, agrees = next(tokens)
    while left:
        said, drafted, left = [token], 0, left - 1
        token, agrees = next(tokens)
        while left and drafted < DRAFT and rng.random() < agrees:
            said.append(token)
            drafted, left = drafted + 1, left - 1
            token, agrees = next(tokens)
        steps.append(Step(wait, "".join(said), len(said)))
        wait = STEP_S * load * math.exp(rng.gauss(0, STEP_SIGMA))
    return steps
