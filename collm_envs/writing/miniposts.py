"""Generated posts of a closed vocabulary, for `writing/tldr-mini-v0`.

A word-level model of about a thousand tokens must read and write every one of them, so each post is made of
`WORDS` and the full stop only.
"""

from __future__ import annotations

import numpy as np

from collm_envs.task import Row

# People, animals, things, places, qualities, verbs, times, days, times of day: gaps of _SENTENCES.
_LISTS = {
    "W": "girl boy man woman friend teacher farmer sister brother mother father baker driver doctor nurse "
    "student "
    "worker neighbor cousin uncle",
    "A": "dog cat horse bird fish rabbit goat duck sheep mouse",
    "X": "book ball kite bread cake pear lamp chair table letter phone basket bottle jacket hat bike car "
    "boat "
    "ring coin box key window garden soup milk cheese paper picture ticket guitar blanket flower stone map",
    "P": "park house school market street river forest kitchen beach station shop bridge hill field barn "
    "library "
    "office village",
    "Q": "red blue green small big old young new happy sad tired quiet loud warm cold fast slow clean dirty "
    "heavy "
    "bright dark sweet kind angry hungry brave lucky strange broken",
    "V": "found lost saw took gave made kept sold bought broke cleaned painted hid moved opened dropped "
    "carried "
    "wanted liked needed fixed washed shared borrowed watched",
    "T": "today yesterday tonight",
    "D": "monday friday sunday",
    "N": "morning evening night summer winter",
}
_DECKS = {letter: tuple(words.split()) for letter, words in _LISTS.items()}
_SMALL = "the a in at on near was with and one"
WORDS = tuple(word for words in (*_LISTS.values(), _SMALL) for word in words.split())
FILL = ("garden", "window", "letter", "market", "friend", "winter", "picture", "blanket")

_SENTENCES = (
    "T the Q W V the X.",
    "on D the W was Q.",
    "the W V the Q X in the P.",
    "the A was Q and Q.",
    "the Q A V the X near the P.",
    "one N the W V a A.",
    "the W with the Q X was Q.",
    "at the P the W V a X.",
)
MIN_WORDS, MAX_WORDS = 12, 24


def _post(rng: np.random.Generator) -> str:
    """A post of some of the sentences, in which no word of a list comes twice."""
    decks = {letter: iter(rng.permutation(words)) for letter, words in _DECKS.items()}
    limit = int(rng.integers(MIN_WORDS, MAX_WORDS + 1))
    sentences: list[str] = []
    used = 0
    for index in rng.permutation(len(_SENTENCES)):
        gaps = _SENTENCES[index].split()
        if used + len(gaps) <= limit:
            used += len(gaps)
            sentences += [str(next(decks[gap[0]])) + gap[1:] if gap[0] in decks else gap for gap in gaps]
    return " ".join(sentences)


def generate(train: int, test: int, seed: int = 11) -> tuple[list[Row], list[Row]]:
    """Distinct posts, the same for equal arguments.

    Args:
        train: number of rows of the first split.
        test: number of rows of the second; no post is in both.
        seed: seed of the generator.
    """
    rng = np.random.default_rng(seed)
    posts: dict[str, None] = {}
    while len(posts) < train + test:
        post = _post(rng)
        if len(post.split()) >= MIN_WORDS:
            posts[post] = None
    rows: list[Row] = [{"post": post} for post in posts]
    return rows[:train], rows[train:]
