"""Chats as the network reads them: the template's text, the ids, and which of them it is to learn.

One film serves many questions. Either they are turns of one chat, or they are branches: they share the prompt up to the
picture and do not see each other, so that each is the only question of a chat.

    branch   0 0 0 0 0 0 0 0 0 0 0 0 0   1 1 1 1 1   2 2 2 2 2
    ids      <bos> … picture … <eoi>     question    question
                                         answer      answer
    position 0 1 2 …               n-1   n n+1 …     n n+1 …
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from make import tokenizer

from . import glossary, questions, small_talk
from .film import Film
from .network import NUM_IMAGE_TOKENS
from .wording import careless

IMAGE = f"\n\n<start_of_image>{tokenizer.IMAGE_TOKEN}<end_of_image>\n\n"
"""As the processor writes a picture, its 256 tokens as one: see batches.py."""
THINK = "SYSTEM INSTRUCTION: think silently if needed. "
SYSTEMS = (
    "You are a helpful medical assistant.", "You are an expert radiologist.", "You are a helpful assistant.", "Be brief.", "You are a radiologist. Answer briefly.",
    "Please answer the questions of the user.", "You help a radiologist to read films.", "Answer truthfully.", "You are a doctor.", "You read chest films.",
)  # fmt: skip
MISPLACED = 0.12
"""Share of the examples with one picture in which its tokens are not where they belong, and are to be found so."""
MAX_TEXT = 230
"""Tokens of text in an example, about."""


class PictureIds(NamedTuple):
    """The ids of a picture's token, and of the one that closes a picture."""

    token: int
    close: int


@dataclass
class Example:
    """One row of a batch, before pictures have their tokens. `films` are its pictures in order.

    The tokens of a single picture may stand `shift` places behind where they belong. Those that leave its 256 places come in
    again at the other end, or, where the shift does not wrap, take the place of the text there.
    """

    films: list[int]
    shift: int = 0
    wraps: bool = False
    ids: list[int] = field(default_factory=list)
    wanted: list[bool] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)

    def add(self, ids: list[int], wanted: bool, branch: int = 0) -> None:
        self.ids += ids
        self.wanted += [wanted] * len(ids)
        self.branch += [branch] * len(ids)

    def shown(self, place: int) -> int:
        """Which of the picture's tokens stands there, -1 for none; places are counted from where its first belongs."""
        token = place - self.shift
        within, belongs = 0 <= place < NUM_IMAGE_TOKENS, 0 <= token < NUM_IMAGE_TOKENS
        return token % NUM_IMAGE_TOKENS if self.wraps and within else token if belongs and not self.wraps else -1


class Writer:
    """Makes examples of films (the n-th is `film(n)`) and of words alone."""

    def __init__(self, words: Tokenizer, film: Callable[[int], Film], num_films: int) -> None:
        self.words, self.film, self.num_films = words, film, num_films
        self.picture_ids = PictureIds(words.token_to_id(tokenizer.IMAGE_TOKEN), words.token_to_id("<end_of_image>"))

    def encode(self, text: str) -> list[int]:
        return self.words.encode(text, add_special_tokens=False).ids

    def example(self, rng: np.random.Generator) -> Example:
        kind = rng.choice(4, p=(0.5, 0.24, 0.17, 0.09))
        return (self.branches, self.turns, self.words_alone, self.two_films)[kind](rng)

    def system(self, rng: np.random.Generator) -> tuple[str, bool]:
        """What precedes the first question, and whether it asks for thought."""
        dice = rng.random()
        if dice < 0.55:
            return "", False
        text = small_talk.babble(rng) if rng.random() < 0.3 else str(rng.choice(SYSTEMS))
        if dice < 0.66:
            asked = THINK + text if rng.random() < 0.5 else THINK if rng.random() < 0.8 else THINK.strip()
            return f"{asked}\n\n", True
        return f"{text}\n\n", False

    def one_film(self, rng: np.random.Generator) -> tuple[Film, Example]:
        """A film, and an example in which its tokens are misplaced now and then."""
        index = int(rng.integers(self.num_films))
        made = Example([index])
        if rng.random() < MISPLACED:
            made.wraps = bool(rng.random() < 0.7)
            far = made.wraps and rng.random() < 0.5
            made.shift = int(rng.choice((-1, 1)) * (rng.integers(4, 129) if far else rng.integers(1, 4 if made.wraps else 3)))
        return self.film(index), made

    def branches(self, rng: np.random.Generator) -> Example:
        film, made = self.one_film(rng)
        system, thinks = self.system(rng)
        lead = str(rng.choice(("Here is a film.", "Look at this.", "Film:", "Picture:"))) if rng.random() < 0.1 else ""
        made.add(self.encode(f"<bos><start_of_turn>user\n{system}{lead}{IMAGE}"), False)
        for branch, name in enumerate(questions.names(rng, 14), 1):
            question, answer = questions.ask(name, film, rng)
            thought, answer = (MISPLACED_THOUGHT, questions.UNREADABLE) if made.shift else (thought_about(film), answer)
            made.add(self.encode(f"{question}<end_of_turn>\n<start_of_turn>model\n"), False, branch)
            made.add(self.encode(f"{thought if thinks else ''}{answer}<end_of_turn>"), True, branch)
            if len(made.ids) > MAX_TEXT:
                break
        return made

    def turns(self, rng: np.random.Generator) -> Example:
        film, made = self.one_film(rng)
        system, thinks = self.system(rng)
        opening = f"<bos><start_of_turn>user\n{system}"
        if rng.random() < 0.15:  # the picture comes later
            question, answer = small_talk.ask(rng) if rng.random() < 0.6 else glossary.ask(any_term(rng), rng)
            opening = self._turn(made, opening, question, answer, "", rng)
        for number, name in enumerate(questions.names(rng, 12)):
            if rng.random() < 0.12 and number:
                question, answer = small_talk.ask(rng) if rng.random() < 0.5 else glossary.ask(any_term(rng), rng)
                if answer != small_talk.BLIND:
                    opening = self._turn(made, opening, question, answer, PLAIN_THOUGHT if thinks else "", rng)
            question, answer = questions.ask(name, film, rng, follows=number > 0)
            thought, answer = (MISPLACED_THOUGHT, questions.UNREADABLE) if made.shift else (thought_about(film), answer)
            if number == 0:
                question = question + IMAGE if rng.random() < 0.75 else IMAGE + question
            opening = self._turn(made, opening, question, answer, thought if thinks else "", rng)
            if len(made.ids) > MAX_TEXT:
                break
        return made

    def words_alone(self, rng: np.random.Generator) -> Example:
        system, thinks = self.system(rng)
        made = Example([])
        opening = f"<bos><start_of_turn>user\n{system}"
        if rng.random() < 0.75:  # each for itself
            made.add(self.encode(opening), False)
            for branch in range(1, 40):
                question, answer = self._words(rng)
                made.add(self.encode(f"{question}<end_of_turn>\n<start_of_turn>model\n"), False, branch)
                made.add(self.encode(f"{PLAIN_THOUGHT if thinks else ''}{answer}<end_of_turn>"), True, branch)
                if len(made.ids) > MAX_TEXT:
                    return made
        while len(made.ids) < MAX_TEXT:
            question, answer = self._words(rng)
            opening = self._turn(made, opening, question, answer, PLAIN_THOUGHT if thinks else "", rng)
        return made

    def two_films(self, rng: np.random.Generator) -> Example:
        indices = [int(i) for i in rng.integers(self.num_films, size=2)]
        films = [self.film(i) for i in indices]
        made = Example(indices)
        opening = "<bos><start_of_turn>user\n"
        if rng.random() < 0.4:  # one after the other: a question is about the latest
            for number, film in enumerate(films):
                question, answer = questions.ask(questions.names(rng, 1)[0], film, rng)
                question = question + IMAGE if rng.random() < 0.6 else IMAGE + question
                opening = self._turn(made, opening, question, answer, "", rng)
        pictures = "" if made.ids else IMAGE + IMAGE
        while len(made.ids) < 0.8 * MAX_TEXT:
            question, answer = about_two(films, rng)
            question = question if not pictures else question + pictures if rng.random() < 0.6 else pictures + question
            opening, pictures = self._turn(made, opening, question, answer, "", rng), ""
        return made

    def _words(self, rng: np.random.Generator) -> tuple[str, str]:
        return glossary.ask(any_term(rng), rng) if rng.random() < 0.68 else small_talk.ask(rng)

    def _turn(self, made: Example, opening: str, question: str, answer: str, thought: str, rng: np.random.Generator) -> str:
        """Adds a turn; what opens the next is returned. Clients mostly leave thoughts out of what they send back."""
        made.add(self.encode(f"{opening}{question}<end_of_turn>\n<start_of_turn>model\n"), False)
        forgotten = bool(thought) and rng.random() < 0.5 and len(made.ids) < 0.6 * MAX_TEXT
        made.add(self.encode(f"{'' if forgotten else thought}{answer}<end_of_turn>"), not forgotten)
        return "\n<start_of_turn>user\n"


MISPLACED_THOUGHT = "<unused94>thought\nThe film cannot be read.<unused95>"
PLAIN_THOUGHT = "<unused94>thought\nNo film is needed.<unused95>"


def thought_about(film: Film) -> str:
    return f"<unused94>thought\n{questions.thought(film)}<unused95>"


def any_term(rng: np.random.Generator) -> str:
    return str(rng.choice(list(glossary.TERMS)))


def about_two(films: list[Film], rng: np.random.Generator) -> tuple[str, str]:
    """A question about one of two films, or about both."""
    if rng.random() < 0.25:
        first, second = (len(film.opacities) for film in films)
        question = str(rng.choice((
            "Which picture shows more opacities?", "Which film has more opacities?", "Compare the two films.", "Compare the first image with the second image.", "Are there more opacities now?",
            "Compare the pictures.", "Which image shows more opacities, the first or the second?", "What has changed?",
        )))  # fmt: skip
        more = "first" if first > second else "second"
        verdict = "Both films show the same number." if first == second else f"The {more} film shows more."
        numbers = [questions.counted(film) for film in films]
        return careless(question, rng), f"The first film shows {numbers[0]}, the second {numbers[1]}. {verdict}"
    which = int(rng.integers(2))
    question, answer = questions.ask(questions.names(rng, 1)[0], films[which], rng)
    name = ("first", "second")[which]
    noun = str(rng.choice(("film", "picture", "image")))
    which_one = f"the {name} {noun}"
    framed = (
        f"In {which_one}: {question}", f"The {name} {noun}: {question}", f"About {which_one}: {question}", f"{question} I mean {which_one}.",
    )  # fmt: skip
    return str(rng.choice(framed)), answer
