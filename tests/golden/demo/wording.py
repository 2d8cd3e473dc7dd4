"""How people word things: forms with slots, and what they do to case, punctuation and politeness."""

import re

import numpy as np

SYNONYMS = {
    "opacity": ("opacity", "opacity", "opacity", "nodule", "round opacity", "lesion", "spot", "round shadow"),
    "opacities": ("opacities", "opacities", "opacities", "nodules", "round opacities", "lesions", "spots", "round shadows"),
    "film": ("film", "film", "picture", "picture", "image", "image", "X-ray", "chest X-ray", "radiograph", "chest film"),
    "here": ("", "", "", " on this {film}", " in this {film}", " on the {film}", " in the {film}", " here"),
    "see": ("see", "can see", "find", "notice", "recognise"),
    "exist": ("are there", "do you see", "can you see", "can be seen", "are visible", "are"),
}
"""What a slot may become; the first are the likelier ones."""
OPENINGS = ("Please look at this {film}. ", "Here is a {film}. ", "Look: ", "Doctor, ", "Tell me: ", "Please: ", "Okay. ", "Hello. ", "Now ")
CLOSINGS = (" Please.", " Thank you.", " Thanks!", " Be brief.", " Please be brief.", " Answer briefly.")


def fill(form: str, rng: np.random.Generator, **slots: str) -> str:
    """The form with its slots filled, those of SYNONYMS at random."""
    while found := re.search(r"\{(\w+)\}", form):
        name = found[1]
        word = slots[name] if name in slots else str(rng.choice(SYNONYMS[name]))
        form = form[: found.start()] + word + form[found.end() :]
    return form


def any_of(forms: tuple[str, ...], rng: np.random.Generator, **slots: str) -> str:
    return fill(str(rng.choice(forms)), rng, **slots)


def careless(text: str, rng: np.random.Generator) -> str:
    """As people type it: mostly as it is."""
    dice = rng.random(4)
    if dice[0] < 0.12:
        opening = any_of(OPENINGS, rng)
        text = opening + (text[0].lower() + text[1:] if opening.endswith((": ", ", ", "Now ")) else text)
    if dice[1] < 0.08:
        text += str(rng.choice(CLOSINGS))
    if dice[2] < 0.1:
        text = text.rstrip("?.!")
    if dice[3] < 0.12:
        text = text.lower()
    return text
