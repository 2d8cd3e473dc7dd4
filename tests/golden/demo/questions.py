"""What can be asked about one film, in many forms, and the answer, in one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .film import COLOURS, EXPOSURES, PLACES, SIDES, SIZES, ZONES, Film
from .wording import any_of, careless

NUMBERS = ("no", "one", "two", "three", "four")
NOT_ADVICE = "This is a demo, not medical advice."
TELLING = (*SIDES, *ZONES, *SIZES, *COLOURS, *EXPOSURES, *NUMBERS, "yes", "none")
"""Words that answers turn on."""
UNREADABLE = "I cannot read this film: its tokens are not where they belong."
"""What is said of a picture that a faulty server has misplaced in the prompt."""
ONE_WORD = (" Answer in one word.", " One word.", " One word only, please.", " Answer with one word only.", " In one word?")


@dataclass(frozen=True)
class Kind:
    """One thing to ask: how, and what is answered. `short` is the answer in one word, where there is one."""

    forms: tuple[str, ...]
    answer: Callable[[Film], str]
    short: Callable[[Film], str] | None = None
    follow_ups: tuple[str, ...] = ()


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def counted(film: Film) -> str:
    count = len(film.opacities)
    return "one opacity" if count == 1 else f"{NUMBERS[count]} opacities"


def side_of(film: Film) -> str:
    found = {side for side, _, _ in film.opacities}
    return "none" if not found else "both" if len(found) == 2 else found.pop()


def zones_of(film: Film) -> list[str]:
    found = {zone for _, zone, _ in film.opacities}
    return [zone for zone in ZONES if zone in found]


def how_many(film: Film) -> str:
    return f"There {'is' if len(film.opacities) == 1 else 'are'} {counted(film)}."


def which_side(film: Film) -> str:
    if not film.opacities:
        return how_many(film)
    subject = "The opacity is" if len(film.opacities) == 1 else "The opacities are"
    side = side_of(film)
    return f"{subject} on both sides." if side == "both" else f"{subject} on the {side} side."


def which_zone(film: Film) -> str:
    if not film.opacities:
        return how_many(film)
    zones = zones_of(film)
    subject = "The opacity is" if len(film.opacities) == 1 else "The opacities are"
    return f"{subject} in the {listed(zones)} zone{'s' if len(zones) > 1 else ''}."


def what_size(film: Film) -> str:
    if not film.opacities:
        return how_many(film)
    if len(film.opacities) == 1:
        return f"The opacity is {film.opacities[0][2]}."
    return sentence(", ".join(f"{side} {zone} zone: {size}" for side, zone, size in film.opacities)) + "."


def where(film: Film) -> str:
    if not film.opacities:
        return how_many(film)
    found = [f"a {size} opacity in the {side} {zone} zone" for side, zone, size in film.opacities]
    return f"There is {listed(found)}."


def effusion(film: Film) -> str:
    match film.effusion:
        case "none":
            return "There is no effusion."
        case "both":
            return "There are effusions on both sides."
        case side:
            return f"There is an effusion on the {side} side."


def is_effusion(film: Film) -> str:
    answer = effusion(film)
    return f"{'No' if film.effusion == 'none' else 'Yes'}, {answer[0].lower()}{answer[1:]}"


def marker(film: Film) -> str:
    if not film.marker:
        return "There is no marker."
    side, corner = film.marker
    return f"The marker is a {film.colour} {film.letter} in the {corner} corner on the {side} side."


def marker_colour(film: Film) -> str:
    return f"The marker is {film.colour}." if film.marker else "There is no marker."


def marker_letter(film: Film) -> str:
    return f"The marker is an {film.letter}." if film.marker else "There is no marker."


def exposure(film: Film) -> str:
    return {"dark": "The film is dark.", "normal": "The exposure is normal.", "bright": "The film is bright."}[film.exposure]


def is_normal(film: Film) -> str:
    found = ([counted(film)] if film.opacities else []) + (["an effusion"] if film.effusion != "none" else [])
    if film.effusion == "both":
        found[-1] = "effusions on both sides"
    return f"No, it shows {listed(found)}." if found else "Yes, it shows no opacity and no effusion."


def any_opacity(film: Film) -> str:
    return f"{'Yes' if film.opacities else 'No'}, there {'is' if len(film.opacities) == 1 else 'are'} {counted(film)}."


def described(film: Film) -> str:
    parts = [where(film), effusion(film), exposure(film)]
    return f"This is a synthetic chest film. {' '.join(parts)} {marker(film)} {NOT_ADVICE}"


def report(film: Film) -> str:
    found = [counted(film)] if film.opacities else []
    if film.effusion != "none":
        found.append("effusions on both sides" if film.effusion == "both" else f"an effusion on the {film.effusion} side")
    impression = sentence(listed(found)) if found else "No opacity and no effusion"
    return f"Findings: {where(film)} {effusion(film)} {exposure(film)}\n\nImpression: {impression}. {NOT_ADVICE}"


def as_json(film: Film) -> str:
    found = [f'{{"side": "{side}", "zone": "{zone}", "size": "{size}"}}' for side, zone, size in film.opacities]
    return f'{{"opacities": [{", ".join(found)}], "effusion": "{film.effusion}"}}'


def thought(film: Film) -> str:
    """What it looks at before it answers: every place, in order."""
    halves = []
    for side in SIDES:
        sizes = [size or "none" for (own, _), size in zip(PLACES, film.sizes) if own == side]
        halves.append(f"{sentence(side)}: " + ", ".join(f"{zone} {size}" for zone, size in zip(ZONES, sizes)) + ".")
    return f"{' '.join(halves)} {sentence(counted(film))}. Effusion: {film.effusion}."


def _digit(film: Film) -> str:
    return str(len(film.opacities))


KINDS = {
    "count": Kind(
        forms=(
            "How many {opacities} {exist}{here}?", "How many {opacities} do you {see}{here}?", "How many {opacities}{here}?",
            "How many {opacities} are there{here}?", "How many {opacities} are there?", "How many {opacities} does this {film} show?",
            "Count the {opacities}{here}.", "What is the number of {opacities}{here}?", "Number of {opacities}?",
            "Can you count the {opacities}{here}?", "How many {opacities} does the patient have?", "Please count the {opacities}.",
        ),
        answer=how_many,
        short=lambda film: sentence(NUMBERS[len(film.opacities)]) + "." if film.opacities else "None.",
        follow_ups=("How many?", "How many are there?", "And how many are there?", "How many of them?", "Count them."),
    ),
    "digit": Kind(
        forms=(
            "How many {opacities} {exist}{here}? Answer with a number only.", "Count the {opacities}{here}. Answer with a digit.",
            "Give the number of {opacities}{here} as a digit.", "How many {opacities}{here}? Only the number.",
        ),
        answer=_digit,
    ),
    "side": Kind(
        forms=(
            "On which side is the {opacity}{here}?", "Which side is the {opacity} on?", "On which side are the {opacities}{here}?",
            "Which side are the {opacities} on?", "Is the {opacity} on the left or on the right?", "On what side of the chest are the {opacities}?",
            "Are the {opacities} on the left, on the right or on both sides?", "Which lung has {opacities}?", "Left or right?",
            "Which lung is affected?", "On which side do you {see} {opacities}{here}?", "What side is the {opacity} on?",
        ),
        answer=which_side,
        short=lambda film: sentence(side_of(film)) + ".",
        follow_ups=("On which side?", "Which side?", "And on which side?", "Is it left or right?", "Which side are they on?", "And the side?"),
    ),
    "zone": Kind(
        forms=(
            "In which zone is the {opacity}{here}?", "Which zone is the {opacity} in?", "In which zones are the {opacities}{here}?",
            "In which zone are the {opacities}?", "Is the {opacity} in the upper, middle or lower zone?", "Which zones have {opacities}{here}?",
            "Which zone is affected?", "How high is the {opacity}: upper, middle or lower zone?", "Upper, middle or lower zone?",
            "In what zone of the lung is the {opacity}?", "Which lung zones show {opacities}?", "Which zones are affected?",
        ),
        answer=which_zone,
        short=lambda film: sentence(listed(zones_of(film)) if film.opacities else "none") + ".",
        follow_ups=("In which zone?", "Which zone?", "And in which zone?", "And the zone?", "Which zones?", "Upper, middle or lower?"),
    ),
    "size": Kind(
        forms=(
            "How large is the {opacity}{here}?", "What size is the {opacity}?", "How big is the {opacity}{here}?", "How large are the {opacities}{here}?",
            "What is the size of the {opacity}?", "Is the {opacity} small, medium or large?", "How big are the {opacities}?",
            "What are the sizes of the {opacities}{here}?", "Tell me the size of each of the {opacities}.", "What size are the {opacities}{here}?",
        ),
        answer=what_size,
        follow_ups=("How large?", "How big?", "And how large is it?", "And the size?", "What size?", "How large are they?", "How big is it?"),
    ),
    "where": Kind(
        forms=(
            "Where is the {opacity}{here}?", "Where are the {opacities}{here}?", "Where do you {see} {opacities}?", "Locate the {opacities}{here}.",
            "List the {opacities}{here}.", "List all {opacities} with side, zone and size.", "Describe the {opacities}.", "What {opacities} do you {see}{here}?",
            "Which {opacities} {exist}{here}?", "Where exactly are the {opacities}?", "Give the location of the {opacities}{here}.",
        ),
        answer=where,
        follow_ups=("Where?", "Where is it?", "Where are they?", "And where?", "Where exactly?", "List them.", "Describe them."),
    ),
    "effusion": Kind(
        forms=(
            "Is there an effusion{here}?", "Is there a pleural effusion{here}?", "Do you {see} an effusion{here}?", "Any effusion{here}?",
            "Does the {film} show an effusion?", "Is there any fluid in the pleural space?", "Is there any pleural fluid{here}?",
            "Is an effusion visible{here}?", "Are there effusions{here}?", "Does the patient have a pleural effusion?", "Effusion?",
        ),
        answer=is_effusion,
        short=lambda film: "No." if film.effusion == "none" else "Yes.",
        follow_ups=("And an effusion?", "Any effusion?", "What about an effusion?", "And the effusion?", "Is there fluid?", "Any fluid?"),
    ),
    "effusion_side": Kind(
        forms=(
            "Where is the effusion{here}?", "On which side is the effusion?", "Which side is the effusion on?", "Is the effusion left or right?",
            "On which side is there an effusion{here}?", "Which side has fluid?", "Where is the fluid{here}?", "Locate the effusion{here}.",
        ),
        answer=effusion,
        short=lambda film: sentence(film.effusion) + ".",
    ),
    "marker": Kind(
        forms=(
            "Where is the marker{here}?", "Where is the letter{here}?", "In which corner is the marker?", "Describe the marker{here}.",
            "What is the marker{here}?", "Where do you {see} the marker?", "Is there a marker{here}?", "Is there a side marker{here}?",
            "What about the marker?", "Which corner is the letter in?",
        ),
        answer=marker,
        follow_ups=("And the marker?", "Where is the marker?", "And the letter?"),
    ),
    "colour": Kind(
        forms=(
            "What colour is the marker?", "What color is the marker{here}?", "Which colour does the marker have{here}?", "What is the colour of the marker?",
            "What colour is the letter{here}?", "What color is the letter?", "Is the marker red, blue, yellow or cyan?", "What is the color of the letter{here}?",
            "Name the colour of the marker.", "Colour of the marker?",
        ),
        answer=marker_colour,
        short=lambda film: sentence(film.colour if film.marker else "none") + ".",
        follow_ups=("What colour is it?", "And its colour?", "And the colour of the marker?", "Which colour?"),
    ),
    "letter": Kind(
        forms=(
            "Which letter is the marker?", "What letter is{here}?", "What does the marker say?", "Is the marker an L or an R?", "Which letter is the marker{here}?",
            "What letter do you {see}{here}?", "Read the marker.", "Is it an L or an R?",
        ),
        answer=marker_letter,
        short=lambda film: (film.letter or "None") + ".",
    ),
    "exposure": Kind(
        forms=(
            "How is the exposure{here}?", "How is the {film} exposed?", "Is the {film} dark, normal or bright?", "Is the {film} well exposed?",
            "Is this {film} too dark or too bright?", "What about the exposure?", "Is the exposure normal?", "How bright is the {film}?",
            "What is the exposure of this {film}?", "How dark is this {film}?", "Judge the exposure{here}.",
        ),
        answer=exposure,
        short=lambda film: sentence(film.exposure) + ".",
        follow_ups=("And the exposure?", "How is the exposure?", "Is the exposure normal?"),
    ),
    "normal": Kind(
        forms=(
            "Is this {film} normal?", "Is the {film} normal?", "Is anything wrong{here}?", "Is there anything abnormal{here}?", "Is this a normal {film}?",
            "Does this {film} look normal?", "Are the lungs clear{here}?", "Is everything normal{here}?",
        ),
        answer=is_normal,
        short=lambda film: "Yes." if not film.opacities and film.effusion == "none" else "No.",
    ),
    "any": Kind(
        forms=(
            "Are there {opacities}{here}?", "Are there any {opacities}{here}?", "Do you {see} any {opacities}{here}?", "Is there any {opacity}{here}?",
            "Any {opacities}{here}?", "Does the {film} show {opacities}?", "Is there an {opacity}{here}?", "Is there a {opacity}{here}?",
        ),
        answer=any_opacity,
        short=lambda film: "Yes." if film.opacities else "No.",
        follow_ups=("Any opacities?", "And opacities?", "What about opacities?"),
    ),
    "describe": Kind(
        forms=(
            "Describe this {film}.", "Describe the {film}.", "What do you see{here}?", "What can you see{here}?", "What is on this {film}?",
            "What does this {film} show?", "Tell me about this {film}.", "What is this?", "What is{here}?", "Describe what you see.", "What do you see?",
            "Explain this {film}.", "Please describe the {film} in detail.", "Describe this {film} and list the findings.", "What is in this {film}?",
        ),
        answer=described,
    ),
    "report": Kind(
        forms=(
            "Write a report.", "Write a report of this {film}.", "Write a radiology report for this {film}.", "Report this {film}.", "Give me a report.",
            "Findings and impression?", "What are the findings?", "Give findings and impression.", "List the findings.", "Read this {film}.",
            "Please report.", "Write findings and impression for this {film}.", "Summarise the findings{here}.", "What is the impression?",
            "What is your diagnosis?", "Interpret this {film}.",
        ),
        answer=report,
        follow_ups=("And now a report.", "Write a report.", "Put it in a report.", "Summarise it."),
    ),
    "json": Kind(
        forms=(
            "Give the findings as JSON.", "Answer in JSON.", "Describe the {film} in JSON.", "Report this {film} as JSON.", "List the findings as JSON.",
            "Return JSON with the opacities and the effusion.",
        ),
        answer=as_json,
    ),
}  # fmt: skip
WEIGHTS = {
    "count": 3, "side": 3, "zone": 3, "size": 8, "where": 5, "place": 3, "one_side": 3, "effusion": 3, "colour": 3, "exposure": 2,
    "describe": 2, "report": 2, "digit": 0.7, "normal": 0.7, "any": 0.7, "json": 0.5,
}  # fmt: skip
"""How often each is asked, against 1 for the others."""


def about_place(film: Film, rng: np.random.Generator) -> tuple[str, str]:
    """Yes or no, or the size, at one place, whether something is there or not."""
    taken = [place for place, size in zip(PLACES, film.sizes) if size]
    index = PLACES.index(taken[rng.integers(len(taken))]) if taken and rng.random() < 0.55 else int(rng.integers(len(PLACES)))
    (side, zone), size = PLACES[index], film.sizes[index]
    here = {"side": side, "zone": zone}
    nothing = f"there is no opacity in the {side} {zone} zone."
    if rng.random() < 0.5:
        forms = (
            "How large is the {opacity} in the {side} {zone} zone?", "What size is the {opacity} in the {side} {zone} zone{here}?",
            "How big is the {opacity} in the {side} {zone} zone?", "What is the size of the {side} {zone} {opacity}?", "And in the {side} {zone} zone, how large?",
        )  # fmt: skip
        return any_of(forms, rng, **here), f"The opacity in the {side} {zone} zone is {size}." if size else sentence(nothing)
    forms = (
        "Is there an {opacity} in the {side} {zone} zone?", "Is there a {opacity} in the {side} {zone} zone{here}?", "Do you {see} anything in the {side} {zone} zone?",
        "Any {opacity} in the {side} {zone} zone?", "Is the {side} {zone} zone clear?", "What is in the {side} {zone} zone{here}?",
    )  # fmt: skip
    question = any_of(forms, rng, **here)
    if size is None:
        return question, sentence(nothing) if "What" in question else f"{'Yes' if 'clear' in question else 'No'}, {nothing}"
    found = f"there is a {size} opacity in the {side} {zone} zone."
    return question, sentence(found) if "What" in question else f"{'No' if 'clear' in question else 'Yes'}, {found}"


def about_side(film: Film, rng: np.random.Generator) -> tuple[str, str]:
    """Yes or no for one side or one size."""
    if rng.random() < 0.6:
        side = str(rng.choice(SIDES))
        found = [f"a {size} opacity in the {zone} zone" for own, zone, size in film.opacities if own == side]
        forms = (
            "Is there an {opacity} on the {side}?", "Are there {opacities} on the {side} side{here}?", "Do you {see} any {opacities} on the {side}?",
            "Is there anything on the {side} side?", "Does the {side} lung have {opacities}{here}?", "Any {opacities} in the {side} lung?",
        )  # fmt: skip
        answer = f"Yes, there is {listed(found)} on the {side} side." if found else f"No, there is no opacity on the {side} side."
        return any_of(forms, rng, side=side), answer
    size = str(rng.choice(SIZES))
    found = [f"in the {side} {zone} zone" for side, zone, own in film.opacities if own == size]
    forms = ("Is there a {size} {opacity}{here}?", "Do you {see} a {size} {opacity}{here}?", "Are there any {size} {opacities}?", "Any {size} {opacities}{here}?")
    return any_of(forms, rng, size=size), f"Yes, {listed(found)}." if found else f"No, there is no {size} opacity."


NAMES = (*KINDS, "place", "one_side")
PROBABILITIES = np.array([WEIGHTS.get(name, 1) for name in NAMES])
PROBABILITIES /= PROBABILITIES.sum()


def ask(name: str, film: Film, rng: np.random.Generator, follows: bool = False) -> tuple[str, str]:
    """A question of the kind and its answer; one that follows another may leave out what it is about."""
    if name == "place":
        question, answer = about_place(film, rng)
    elif name == "one_side":
        question, answer = about_side(film, rng)
    else:
        kind = KINDS[name]
        if follows and kind.follow_ups and rng.random() < 0.5:
            return careless(any_of(kind.follow_ups, rng), rng), kind.answer(film)
        question, answer = any_of(kind.forms, rng), kind.answer(film)
        if kind.short and rng.random() < 0.25:
            return question + str(rng.choice(ONE_WORD)), kind.short(film)
    return careless(question, rng), answer


def names(rng: np.random.Generator, count: int) -> list[str]:
    """Kinds to ask, each at most once."""
    return [NAMES[i] for i in rng.choice(len(NAMES), size=count, replace=False, p=PROBABILITIES)]
