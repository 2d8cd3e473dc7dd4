"""The second and third stage: the language model learns to talk about films, first about facts, then about what the tower sees.

Second: the tower is still learning (see seeing.py), so a picture's tokens are made from the facts that the tower will tell,
with noise. Third: the projector becomes the linear map that fits the tower's tokens to those (least squares), and everything
behind the tower is trained on.
"""

import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Gemma3ForConditionalGeneration

from . import dataset, questions
from .batches import Batch, collate
from .chats import IMAGE, Example, Writer
from .schedule import Kept, Optimisers, Plan, steps
from .seeing import CLASSES, COLOUR, MARKER, as_input

BATCH = 8
NOISE = 0.15
SOME = (4, 8, 16, 32)
"""How many of a picture's 256 tokens there are, drawn for each batch, in the second stage and most of the third: a few cost
little, and that their number changes prepares for all of them."""


class Facts(nn.Module):
    """A picture's tokens from the facts: one row for each value of each fact, and one for any picture."""

    def __init__(self, codes: np.ndarray, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.3 * torch.randn(sum(CLASSES) + 1, width))
        parts = []
        for fact, count in enumerate(CLASSES):
            part = torch.eye(count)[torch.from_numpy(codes[:, fact]).long()]
            parts.append(part * (torch.from_numpy(codes[:, MARKER, None]) != 0) if fact == COLOUR else part)
        self.told = torch.cat([*parts, torch.ones(len(codes), 1)], 1)  # (films, values)

    def forward(self, film: Tensor, patch: Tensor) -> Tensor:
        told = self.told[film]
        return (told + NOISE * torch.randn_like(told)) @ self.rows


class Features(nn.Module):
    """A picture's tokens as the projector makes them of what the tower saw, which is kept."""

    def __init__(self, model: Gemma3ForConditionalGeneration, pictures: Tensor) -> None:
        super().__init__()
        self.projector = model.model.multi_modal_projector
        with torch.no_grad():
            tower = model.model.vision_tower.eval()
            seen = [tower(as_input(part)).last_hidden_state.half() for part in pictures.split(100)]
        self.seen = torch.cat(seen)  # (films, 256, width)

    def forward(self, film: Tensor, patch: Tensor) -> Tensor:
        normed = self.projector.mm_soft_emb_norm(self.seen[film, patch].float())
        return normed @ self.projector.mm_input_projection_weight


def fit_projector(features: Features, facts: Facts, num_films: int) -> float:
    """Makes the projector say what the facts would; the share of the variance that it does not reach is returned."""
    with torch.no_grad():
        film = torch.arange(min(num_films, 4000)).repeat_interleave(8)
        patch = torch.randint(features.seen.shape[1], film.shape)
        normed = features.projector.mm_soft_emb_norm(features.seen[film, patch].float())
        told = facts.told[film]
        fitted = torch.linalg.lstsq(normed, told).solution
        features.projector.mm_input_projection_weight.copy_(fitted @ facts.rows)
        return float((normed @ fitted - told).square().sum() / (told - told.mean(0)).square().sum())


def hidden(model: Gemma3ForConditionalGeneration, pictures: nn.Module, batch: Batch) -> Tensor:
    """(predicting tokens, width)."""
    language_model = model.model.language_model
    embedded = language_model.embed_tokens(batch.ids)
    if len(batch.film):
        embedded = embedded.masked_scatter(batch.is_image[..., None], pictures(batch.film, batch.patch))
    mask = {"full_attention": batch.mask, "sliding_attention": batch.mask}
    out = language_model(inputs_embeds=embedded, attention_mask=mask, position_ids=batch.positions, use_cache=False)
    return out.last_hidden_state[batch.predicts]


def logits(model: Gemma3ForConditionalGeneration, pictures: nn.Module, batch: Batch) -> Tensor:
    return hidden(model, pictures, batch) @ model.get_input_embeddings().weight.T


def train(
    model: Gemma3ForConditionalGeneration,
    pictures: nn.Module,
    writer: Writer,
    num_patches: tuple[int, ...],
    plan: Plan,
) -> None:
    """Trains all but the tower, with any of these numbers of tokens for a picture."""
    image_id = writer.image_id
    named = [*model.model.language_model.named_parameters(), *pictures.named_parameters()]
    optimisers = Optimisers(named, plan.rate)
    kept = Kept(plan.keep, {"model": model, "pictures": pictures}, optimisers)
    first = kept.load()
    rng = np.random.default_rng([plan.seed, 2, first])
    start, average = time.monotonic(), None
    for step, share in steps(first, plan.count, plan.seconds):
        batch = collate([writer.example(rng) for _ in range(BATCH)], image_id, int(rng.choice(num_patches)), rng)
        loss = cross_entropy(logits(model, pictures, batch), batch.targets)
        loss.backward()
        optimisers.step(share)
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if step % 20 == 19:
            passed = time.monotonic() - start
            print(f"talking: step {step + 1} of {plan.count}, {passed:.0f} s, loss {average:.4f}", flush=True)
        if step % kept.EVERY == kept.EVERY - 1:
            kept.save(step + 1)
        if step % 200 == 199:
            print("  whole answers right:", right(model, pictures, writer, num_patches[-1]), flush=True)
    kept.save(plan.count)
    print("  whole answers right:", right(model, pictures, writer, num_patches[-1]), flush=True)


@torch.no_grad()
def right(
    model: Gemma3ForConditionalGeneration, pictures: nn.Module, writer: Writer, num_patches: int, num_films: int = 20
) -> str:
    """By kind of question, the share of answers on unseen films of which every token is the likeliest."""
    rng = np.random.default_rng(7)
    shares = {}
    for name in questions.NAMES:
        examples = []
        for i in range(num_films):
            index = writer.num_films + i
            question, answer = questions.ask(name, writer.film(index), rng)
            made = Example([index])
            made.add(writer.encode(f"<bos><start_of_turn>user\n{question}{IMAGE}<end_of_turn>\n<start_of_turn>model\n"), False)
            made.add(writer.encode(f"{answer}<end_of_turn>"), True)
            examples.append(made)
        batch = collate(examples, writer.image_id, num_patches, rng)
        good = logits(model, pictures, batch).argmax(-1) == batch.targets
        row = batch.predicts.nonzero()[:, 0]
        wrong = torch.zeros(num_films).index_add_(0, row, (~good).float())
        shares[name] = (wrong == 0).float().mean()
    return " ".join(f"{name} {share:.2f}" for name, share in shares.items())


def writer(folder: Path, codes: np.ndarray, num_films: int) -> Writer:
    """Of the first `num_films`; those behind are never shown."""
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Writer(words, lambda index: dataset.film_of(codes[index]), num_films)
