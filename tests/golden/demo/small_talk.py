"""What is said when there is no film to talk about, and no term to define."""

import numpy as np

from .wording import careless, fill

HELLO = "Hello! I am a demo model: send me a synthetic chest film and ask about it, or ask me what a medical term means."
WHO = "I am a demo model, a tiny Gemma 3 that knows synthetic chest films and a glossary. Nothing I say is medical advice."
CAN = "I count the opacities on a synthetic chest film, name their side, zone and size, find effusions, read the marker, write reports and define medical terms."
ADVICE = "I am a demo model and cannot give medical advice. Please ask a physician."
LOST = "I am only a demo model. Ask me about a synthetic chest film or a medical term, or serve a real model for anything else."
BLIND = "I see no picture. Please send a film and ask again."

SAYINGS: dict[str, tuple[str, ...]] = {
    HELLO: (
        "Hello", "Hello!", "Hi", "Hi!", "Hi there", "Hey", "Hello there", "Good morning", "Good evening", "Good day", "Hello, how are you?", "How are you?", "Hallo", "Hi, who is there?",
        "Hello, are you there?", "Are you there?", "Hey there!", "Test", "ping", "Say hello.", "Say hi", "Greetings", "Say something.", "Start",
    ),
    WHO: (
        "Who are you?", "What are you?", "Who is this?", "What is your name?", "Are you a doctor?", "Are you a real model?", "What model are you?", "Which model is this?", "Are you MedGemma?",
        "Are you Gemma?", "Tell me about yourself.", "Introduce yourself.", "Are you an AI?", "Are you human?", "Who made you?", "Is this a demo?", "Are you a demo?", "What is this?",
        "Can I trust you?", "Is this medical advice?", "How large are you?", "Are you a radiologist?",
    ),
    CAN: (
        "What can you do?", "Help", "Help me", "What can I ask?", "What do you know?", "How can you help me?", "What are you good at?", "What can I do here?", "How does this work?", "What should I ask?",
        "What questions can I ask?", "Give me an example.", "What are your abilities?", "What can you tell me?", "What can you see?", "How do I use you?",
    ),
    ADVICE: (
        "I have a headache.", "I have a cough.", "I have a fever, what should I do?", "I feel sick.", "My chest hurts.", "Should I see a doctor?", "Can you diagnose me?", "What should I take for pain?",
        "I have chest pain.", "Am I ill?", "What is my diagnosis?", "Do I have cancer?", "Which drug should I take?", "I am short of breath.", "My leg is swollen.", "Is it dangerous?",
        "What dose of ibuprofen may I take?", "Give me medical advice.", "Can you treat me?", "My child has a rash.", "I have a cough and a fever for three days.", "What is the best treatment?",
        "I feel dizzy.", "My back hurts.", "What is the most likely diagnosis?", "Please help me, I am in pain.",
    ),
    "You are welcome.": ("Thank you", "Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Thanks a lot", "Great, thanks.", "Good, thank you.", "Very good.", "Well done!", "Great!", "Nice", "Okay", "Ok.", "Good job"),
    "Goodbye!": ("Bye", "Goodbye", "Goodbye!", "See you", "See you later", "Good night", "That is all.", "Bye bye!", "I am done."),
    "I speak English only.": ("Do you speak German?", "Sprechen Sie Deutsch?", "Parlez-vous français?", "Do you speak Spanish?", "Which languages do you speak?", "Can you speak French?", "Habla español?", "In German, please."),
    BLIND: (
        "How many {opacities} are there?", "Is there an effusion?", "Describe this {film}.", "Describe the {film}.", "What do you see{here}?", "On which side is the {opacity}?", "In which zone is the {opacity}?",
        "How large is the {opacity}?", "Where is the marker?", "Write a report.", "Is this {film} normal?", "What colour is the marker?", "What does this {film} show?", "Where are the {opacities}?",
        "What are the findings?", "Is the heart normal?", "Read this {film}.", "Are there any {opacities}{here}?", "How is the exposure?", "Count the {opacities}{here}.",
    ),
    LOST: (
        "Tell me a joke.", "Write a poem.", "What is the weather?", "What time is it?", "What is two plus two?", "Write a story.", "Sing a song.", "What is the capital of France?", "Translate this.", "Write code.",
        "Who is the president?", "Tell me a story about a doctor.", "What is the meaning of life?", "Draw a picture.", "Play a game.", "Count to ten.", "Do you like music?", "Call a tool.", "Search the web.",
        "Why is the sky blue?", "Write Python code for a loop.", "Talk", "Tell me something.", "What is 12 times 4?", "Repeat after me.", "Summarise this text.", "Who won the game?", "Book a flight.",
    ),
}  # fmt: skip

STRAY = """
time day year way man world life hand part child eye woman place work week case point company number group problem fact house money car city water book game line door road friend music food tree sun
the of and to in for on with at by from about into over after is was are be have has had do make go take come think look want give use find tell work seem feel try leave call
good new first last long great little own other old right big high small large next early young few public bad same able red blue green fast cold warm loud
patient man woman years old history pain blood test doctor hospital nurse drug pressure heart skin liver brain bone dose daily weeks
""".split()
"""What sentences of no meaning are made of: to these, too, there is an answer."""


def ask(rng: np.random.Generator) -> tuple[str, str]:
    """Something that people say, and what to answer."""
    answers = list(SAYINGS)
    answer = answers[rng.choice(len(answers), p=(0.16, 0.16, 0.13, 0.13, 0.07, 0.04, 0.04, 0.15, 0.12))]
    if answer == LOST and rng.random() < 0.6:
        return careless(babble(rng), rng), answer
    return careless(fill(str(rng.choice(SAYINGS[answer])), rng), rng), answer


def babble(rng: np.random.Generator) -> str:
    words = " ".join(rng.choice(STRAY, rng.integers(3, 14)))
    return words[0].upper() + words[1:] + str(rng.choice((".", "?", "!", "")))
