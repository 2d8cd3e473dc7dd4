"""The demo's vocabulary, made from what is said to it and what it says."""

from functools import cache

import numpy as np

from make import tokenizer

from . import film, glossary, questions, small_talk

VOCAB_SIZE = 2048
SEED = 1
NUM_FILMS = 400


@cache
def words() -> tokenizer.Words:
    rng = np.random.default_rng(SEED)
    texts = [tokenizer.CORPUS, questions.UNREADABLE]
    for _ in range(NUM_FILMS):
        seen = film.draw(rng)
        texts.append(questions.thought(seen))
        for name in questions.NAMES:
            texts.extend(questions.ask(name, seen, rng))
    for term in glossary.TERMS:
        for _ in range(2):
            texts.extend(glossary.ask(term, rng))
    for forms in small_talk.SAYINGS.values():
        texts.extend(forms)
    for _ in range(200):
        texts.extend(small_talk.ask(rng))
    return tokenizer.Words("\n\n".join(texts), VOCAB_SIZE)
