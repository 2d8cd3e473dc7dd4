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
from torch.nn.functional import cross_entropy, one_hot
from transformers import Gemma3ForConditionalGeneration

from . import dataset, network, pixels, questions
from .batches import Batch, collate
from .chats import IMAGE, Example, Writer
from .film import PLACES
from .network import NUM_IMAGE_TOKENS
from .schedule import Kept, Optimisers, Plan, steps
from .seeing import CLASSES, COLOUR, MARKER, NEAR, PLACE, as_input, ends

BATCH = 8
NOISE = 0.15
NOTICED = 0.3
"""What the loss of noticing misplaced pictures weighs, against one of a token."""
HEAVY = 4.0
"""What a word that an answer turns on weighs, against any other."""
SOME = (12, 16, 24, 32)
"""How many of a picture's 256 tokens there are, drawn for each batch, in the second stage and most of the third: a few cost
little, and that their number changes prepares for all of them."""


class Facts(nn.Module):
    """A picture's tokens from the facts: one row for each value of each fact, one for any picture, two for its ends, one for
    each place where a token may lie and each size of what is there."""

    def __init__(self, codes: np.ndarray, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.3 * torch.randn(sum(CLASSES) + 3 + sum(NEAR), width))
        parts = []
        for fact, count in enumerate(CLASSES):
            part = torch.eye(count)[torch.from_numpy(codes[:, fact]).long()]
            parts.append(part * (torch.from_numpy(codes[:, MARKER, None]) != 0) if fact == COLOUR else part)
        self.told = torch.cat([*parts, torch.ones(len(codes), 1)], 1)  # (films, values)
        self.sizes = torch.from_numpy(codes[:, : len(PLACES)]).long()

    def tells(self, film: Tensor, patch: Tensor) -> Tensor:
        place = PLACE[patch]
        near = [one_hot(value, count) for value, count in zip((place, self.sizes[film, place]), NEAR)]
        return torch.cat([self.told[film], ends(patch), *near], -1)

    def forward(self, film: Tensor, patch: Tensor) -> Tensor:
        told = self.tells(film, patch)
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
        patch = torch.randint(NUM_IMAGE_TOKENS, film.shape)
        patch[::8], patch[1::8] = 0, NUM_IMAGE_TOKENS - 1
        normed = features.projector.mm_soft_emb_norm(features.seen[film, patch].float())
        told = facts.tells(film, patch)
        fitted = torch.linalg.lstsq(normed, told).solution
        features.projector.mm_input_projection_weight.copy_(fitted @ facts.rows)
        return float((normed @ fitted - told).square().sum() / (told - told.mean(0)).square().sum())


def hidden(model: Gemma3ForConditionalGeneration, pictures: nn.Module, batch: Batch) -> Tensor:
    """(rows, tokens, width)."""
    language_model = model.model.language_model
    embedded = language_model.embed_tokens(batch.ids)
    if len(batch.film):
        embedded = embedded.masked_scatter(batch.is_image[..., None], pictures(batch.film, batch.patch))
    mask = {"full_attention": batch.mask, "sliding_attention": batch.mask}
    out = language_model(inputs_embeds=embedded, attention_mask=mask, position_ids=batch.positions, use_cache=False)
    return out.last_hidden_state


def logits(model: Gemma3ForConditionalGeneration, batch: Batch, hidden: Tensor) -> Tensor:
    """(predicting tokens, vocabulary)."""
    return hidden[batch.predicts] @ model.get_input_embeddings().weight.T


def train(
    model: Gemma3ForConditionalGeneration, pictures: nn.Module, writer: Writer, num_patches: tuple[int, ...], plan: Plan
) -> None:
    """Trains all but the tower, with any of these numbers of tokens for a picture.

    That a picture is misplaced is learnt where it ends as well, by a head that is thrown away: from answers alone it takes long.
    """
    misplaced = nn.Linear(network.TEXT["hidden_size"], 2)
    named = [*model.model.language_model.named_parameters(), *pictures.named_parameters(), *misplaced.named_parameters()]
    optimisers = Optimisers(named, plan.rate)
    kept = Kept(plan.keep, {"model": model, "pictures": pictures, "misplaced": misplaced}, optimisers)
    first = kept.load()
    weights = weights_of_tokens(writer)
    rng = np.random.default_rng([plan.seed, 2, first])
    start, average = time.monotonic(), None
    for step, share in steps(first, plan.count, plan.seconds):
        batch = collate([writer.example(rng) for _ in range(BATCH)], writer.picture_ids, int(rng.choice(num_patches)), rng)
        seen = hidden(model, pictures, batch)
        loss = cross_entropy(logits(model, batch, seen), batch.targets, weight=weights)
        noticed = cross_entropy(misplaced(seen[batch.closes]), batch.misplaced.long()) if batch.closes.any() else 0
        (loss + NOTICED * noticed).backward()
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


def weights_of_tokens(writer: Writer) -> Tensor:
    """(vocabulary,): what each weighs in the loss."""
    weights = torch.ones(network.config(pixels.POOLED_SIDE).text_config.vocab_size)
    for word in questions.TELLING:
        for form in (word, f" {word}", word.capitalize()):
            weights[writer.encode(form)] = HEAVY
    return weights


@torch.no_grad()
def right(
    model: Gemma3ForConditionalGeneration, pictures: nn.Module, writer: Writer, num_patches: int, num_films: int = 20
) -> str:
    """By kind of question, the share of answers on unseen films of which every token is the likeliest."""
    rng = np.random.default_rng(7)
    shares = {}
    for name in (*questions.NAMES, "misplaced"):
        examples = []
        for i in range(num_films):
            index = writer.num_films + i
            if name == "misplaced":
                question, _ = questions.ask("count", writer.film(index), rng)
                made, answer = Example([index], shift=(-1, 1, -2, 9)[i % 4], wraps=i % 8 != 0), questions.UNREADABLE
            else:
                question, answer = questions.ask(name, writer.film(index), rng)
                made = Example([index])
            made.add(writer.encode(f"<bos><start_of_turn>user\n{question}{IMAGE}<end_of_turn>\n<start_of_turn>model\n"), False)
            made.add(writer.encode(f"{answer}<end_of_turn>"), True)
            examples.append(made)
        batch = collate(examples, writer.picture_ids, num_patches, rng)
        good = logits(model, batch, hidden(model, pictures, batch)).argmax(-1) == batch.targets
        row = batch.predicts.nonzero()[:, 0]
        wrong = torch.zeros(num_films).index_add_(0, row, (~good).float())
        shares[name] = (wrong == 0).float().mean()
    return " ".join(f"{name} {share:.2f}" for name, share in shares.items())


def writer(folder: Path, codes: np.ndarray, num_films: int) -> Writer:
    """Of the first `num_films`; those behind are never shown."""
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Writer(words, lambda index: dataset.film_of(codes[index]), num_films)
