"""Makes a demo model that sees, and measures what one can. Run by hand, from anywhere:

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 tokenizers==0.23.3 \
        safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    python tests/golden/train_demo.py train --out DIR                    # 77 minutes on two cores
    medgemma serve DIR
    python tests/golden/train_demo.py render --seed 5 --count 1200 FILMS # films that it has not seen
    python tests/golden/train_demo.py measure http://127.0.0.1:8000 FILMS --as jpeg

The demo looks at synthetic chest films. What there is to see on them and where **left and right** are is written in
demo/film.py: the sides are the patient's, and the patient's right is at the left edge of the picture. A question is about the
number, side, zone and size of round opacities, an effusion, the marker and its colour, or the exposure; or it asks for a
description, a report or JSON. Besides it learns the terms of demo/glossary.py and some small talk, and to think before it
answers where the system text asks for it.

Every token of a picture tells of the whole film, and once more of the place at which it lies; the first and the last tell that
they are. Of a picture that is misplaced in the prompt, as a faulty server would misplace it, the demo learns to say that it
cannot be read.

Training (demo/stages.py), with what a step takes of one core and what came of it on 2026-11-28, in one run of 77 minutes:

    films     20,000 rendered                  0.02 s a film
    seeing    the tower alone, 3,600 steps     0.4 s; of 500 unseen films each fact is told right for 500
    talking   the words alone, 3,700 steps     0.35 s; the loss of a token falls from 7.3 to 0.009
    joined    both, 4,500 steps                0.22 s, on two cores; to 0.002
    whole     the same with all of a picture's tokens, 3,000 steps; 0.55 s, to 0.001

The second and the third need nothing of each other and run at the same time, on one core each. `--work` keeps what there is of
every stage: a run that was cut off goes on from there, at most a hundred steps back, and repeats only in part what an unbroken
run draws.

What the model, which is the one in src/registry/demo, came to on 1,000 unseen films, asked through the server, stands in
benches/RESULTS.md.
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
