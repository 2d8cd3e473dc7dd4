"""Makes a demo model that sees, and measures what one can. Run by hand, from anywhere:

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 tokenizers==0.23.3 \
        safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    python tests/golden/train_demo.py train --out DIR                    # an hour or so on two idle cores
    medgemma serve DIR
    python tests/golden/train_demo.py render --seed 5 --count 1200 FILMS # films that it has not seen
    python tests/golden/train_demo.py measure http://127.0.0.1:8000 FILMS --as jpeg

**The model in src/registry/demo does not come from here yet**: it is make/demo.py's, and its words are noise. No run has been
through all stages at full length so far, so what accuracy they reach is not known.

The demo looks at synthetic chest films. What there is to see on them and where **left and right** are is written in
demo/film.py: the sides are the patient's, and the patient's right is at the left edge of the picture. A question is about the
number, side, zone and size of round opacities, an effusion, the marker and its colour, or the exposure; or it asks for a
description, a report or JSON. Besides it learns the terms of demo/glossary.py and some small talk, and to think before it
answers where the system text asks for it.

Training (demo/stages.py), with what a step takes of one core, measured on a busy machine, and how far it was tried:

    films     20,000 rendered                  0.05 s a film
    seeing    the tower alone, 3,600 steps     0.4 s; the loss, over ten facts, was 10.4 at step 50 and 0.8 at step 900
    talking   the words alone, 2,400 steps     0.5 s; the loss of a token was 7.2 at step 20 and 1.4 at step 100
    joined    both, 1,000 steps                a step was tried, not timed
    whole     the same with all of a picture's tokens, 150 steps; likewise

The second and the third need nothing of each other and run at the same time, on one core each. `--work` keeps what there is of
every stage: a run that was cut off goes on from there, at most a hundred steps back. It repeats only in part what an unbroken
run draws.
"""

import argparse
from pathlib import Path

HERE = Path(__file__).parent
WORK = HERE.parents[1] / "target" / "demo-training"
SEED = 20261127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a demo and write its files")
    train.add_argument("--out", type=Path, required=True, help="a folder for the model")
    train.add_argument("--work", type=Path, default=WORK, help="a folder for films and stages, 3 GB [default: target/demo-training]")
    train.add_argument("--minutes", type=float, default=110, help="at most; what this cuts short cannot be repeated exactly")
    render = commands.add_parser("render", help="write unseen films and truth.jsonl")
    render.add_argument("--seed", type=int, required=True)
    render.add_argument("--count", type=int, required=True)
    render.add_argument("--small", action="store_true", help="small files, for a repository")
    render.add_argument("folder", type=Path)
    measure = commands.add_parser("measure", help="ask a server about such films")
    measure.add_argument("base_url")
    measure.add_argument("folder", type=Path)
    measure.add_argument("--as", dest="kind", choices=("png", "jpeg"), default="png")
    measure.add_argument("--kinds", nargs="*", default=[], help="only these kinds of questions")
    measure.add_argument("--wrong", type=Path, help="a file for what was answered wrongly")
    given = parser.parse_args()

    # Rendering and measuring need no torch.
    if given.command == "render":
        from demo import exam

        exam.render(given.folder, given.seed, given.count, given.small)
    elif given.command == "measure":
        from demo import exam

        exam.measure(given.base_url, given.folder, given.kind, given.kinds, given.wrong)
    else:
        from demo import stages

        stages.run(given.work, given.out, SEED, given.minutes * 60)


if __name__ == "__main__":
    main()
