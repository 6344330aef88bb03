"""The three stages of training: the tower learns to see, then to name, then to answer.

0. `tower`: stands in for CLIP's pre-training (see `tower_pretraining`). Afterwards the tower is
   frozen, as in the paper.
1. `alignment`: the projector alone learns to turn features into the words' embeddings (see
   `alignment`); the paper does it with captions.
2. `tuning`: visual instruction tuning, on questions and conversations, of the decoder and, once
   that can read, of the projector too; until late in the stage both are also told what to see in
   the image (see `alignment` and `grounding`). Towards the end the decoder's matrices are
   rounded to 4 bits in half of the steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mvlm.training.alignment import TokenReader, alignment_loss, facts
from mvlm.training.batches import IGNORE, Batch, attention_mask, conversations, pack
from mvlm.training.grounding import GroundingHeads
from mvlm.training.image_store import ImageBatch, ImageStore
from mvlm.training.model.clip import ClipTower
from mvlm.training.model.mobilevlm import MobileVlm
from mvlm.training.optimizer import MuonAdamW, optimizer_for
from mvlm.training.prompt import Prompter
from mvlm.training.tower_pretraining import (
    PatchHead,
    patch_targets,
    pretraining_loss,
    pretraining_scores,
)

#: Called after each step with (step, steps, smoothed measurements).
Report = Callable[[int, int, dict[str, float]], None]
WARM_UP = 60


@dataclass(frozen=True)
class StagePlan:
    """How long and how fast one stage learns.

    `batch` images a step, with `pairs` questions each in the last stage, cut to `tokens` of text.
    `seconds` bounds the stage: on a slow machine the schedule ends early.
    """

    steps: int
    batch: int
    rate: float
    pairs: int = 0
    tokens: int = 0
    seconds: float = math.inf

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.rate <= 0 or self.seconds <= 0:
            raise ValueError(f"steps, batch, rate and seconds must be positive: {self}")


class _Schedule:
    """Warm-up, then a cosine to a fiftieth; on a slow machine the clock decides, not the steps."""

    def __init__(self, plan: StagePlan) -> None:
        self.plan, self.began = plan, time.monotonic()

    def progress(self, step: int) -> float:
        """How much of the stage is over, 0 to 1."""
        return max(step / self.plan.steps, (time.monotonic() - self.began) / self.plan.seconds)

    def rate(self, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step))))
        return self.plan.rate * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


class _Smooth:
    """Running means of measurements."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, new: dict[str, float]) -> dict[str, float]:
        for key, value in new.items():
            self.values[key] = self.values.get(key, value) * 0.97 + value * 0.03
        return self.values


#: The loss to descend, and other measurements.
StepResult = tuple[Tensor, dict[str, float]]
#: Takes a batch, the step's number and how much of the stage is over, 0 to 1.
StepLoss = Callable[[ImageBatch, int, float], StepResult]


def _learn(
    store: ImageStore, plan: StagePlan, rng: np.random.Generator, optimizer: MuonAdamW,
    report: Report, step_loss: StepLoss,
) -> None:  # fmt: skip
    """Runs one stage's steps to the end of its plan."""
    schedule, smooth = _Schedule(plan), _Smooth()
    for step in range(plan.steps):
        progress = schedule.progress(step)
        if progress >= 1:
            break
        batch = store.batch(rng.integers(0, len(store), plan.batch), rng)
        loss, scores = step_loss(batch, step, progress)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(schedule.rate(step))
        report(step + 1, plan.steps, smooth.add({"loss": float(loss.detach())} | scores))


def pretrain_tower(
    tower: ClipTower, store: ImageStore, plan: StagePlan, seed: int, report: Report
) -> None:
    """Stage 0, in place."""
    torch.manual_seed(seed + 100)
    head = PatchHead(tower.config.width)

    def step_loss(batch: ImageBatch, step: int, progress: float) -> StepResult:
        wanted = patch_targets(batch)
        said = head(tower(batch.pixels))
        return pretraining_loss(said, wanted), pretraining_scores(said, wanted)

    rng = np.random.default_rng([seed, 10])
    _learn(store, plan, rng, optimizer_for(tower, head), report, step_loss)


def align_projector(
    tower: ClipTower, model: MobileVlm, prompter: Prompter, store: ImageStore, plan: StagePlan,
    seed: int, report: Report,
) -> None:  # fmt: skip
    """Stage 1, in place; of the decoder, only the embeddings change."""
    torch.manual_seed(seed + 101)
    projector, embeddings = model.model.mm_projector, model.model.embed_tokens
    reader = TokenReader(prompter, model.config.llama.hidden)

    def step_loss(batch: ImageBatch, step: int, progress: float) -> StepResult:
        with torch.no_grad():
            features = tower(batch.pixels)
        said = reader(projector(features), embeddings.weight)
        return alignment_loss(reader, said, batch, facts(batch.scenes))

    rng = np.random.default_rng([seed, 11])
    _learn(store, plan, rng, optimizer_for(projector, embeddings, reader), report, step_loss)
    model.head_from_embeddings()


def tune(
    tower: ClipTower, model: MobileVlm, prompter: Prompter, store: ImageStore, plan: StagePlan,
    seed: int, report: Report,
) -> None:  # fmt: skip
    """Stage 2, in place; the tower stays as it is."""
    torch.manual_seed(seed + 102)
    words = Random(f"{seed}/tuning")
    start = len(prompter.before_image()) + model.config.image_tokens
    heads = GroundingHeads(model.config.llama.hidden)
    reader = TokenReader(prompter, model.config.llama.hidden)
    projector, embeddings = model.model.mm_projector, model.model.embed_tokens

    def step_loss(batch: ImageBatch, step: int, progress: float) -> StepResult:
        rows = [conversations(scene, plan.pairs, words) for scene in batch.scenes]
        packed = pack(rows, batch.scenes, prompter, start, plan.tokens)
        model.fake_quantize_4bit(progress > ROUNDING_FROM and step % 2 == 0)
        with torch.no_grad():
            features = tower(batch.pixels)
        # The gradients of a decoder that cannot read yet would scramble the image tokens: places
        # were lost within minutes and never learned again.
        with torch.set_grad_enabled(progress > PROJECTOR_FROM):
            image = projector(features)
        states: list[Tensor] = []
        loss, right = answer_loss(model, image, packed, prompter, states)
        weight = GUIDANCE * (1 - progress / UNGUIDED_FROM)
        if weight <= 0:
            return loss, {"tokens": right}
        text = [state[:, model.config.image_tokens :] for state in states]
        known = facts(batch.scenes)
        ground = heads(text, packed.meant, packed.counts, packed.spoken, known)
        align, seen = alignment_loss(reader, reader(image, embeddings.weight), batch, known)
        scores = {"tokens": right, "grounding": float(ground.detach())}
        return loss + weight * (ground + align), scores | seen

    rng = np.random.default_rng([seed, 12])
    _learn(store, plan, rng, optimizer_for(model, heads, reader), report, step_loss)
    model.fake_quantize_4bit(False)


#: Share of stage 2 after which half of its steps see 4-bit weights.
ROUNDING_FROM = 0.7
#: Weight of alignment and grounding at the start, and the share of stage 2 after which it is zero.
GUIDANCE, UNGUIDED_FROM = 0.3, 0.7
#: Share of stage 2 after which the projector learns too.
PROJECTOR_FROM = 0.25


def answer_loss(
    model: MobileVlm, image: Tensor, batch: Batch, prompter: Prompter,
    states: list[Tensor] | None = None,
) -> tuple[Tensor, float]:  # fmt: skip
    """Cross-entropy of the answers' tokens, and the share of them that is predicted right.

    `image` are the projector's tokens (rows, tokens, hidden); `states` is given the hidden states
    after each layer, of image tokens and text.
    """
    body = model.model
    system_ids = torch.tensor([prompter.before_image()])
    system = system_ids.shape[1]
    _, past = body(body.embed_tokens(system_ids), torch.arange(system)[None])
    rows, tokens = image.shape[:2]
    x = torch.cat([image, body.embed_tokens(batch.ids)], 1)
    at = torch.arange(system, system + tokens).expand(rows, -1)
    mask = attention_mask(batch.chain, system, tokens)
    hidden, _ = body(x, torch.cat([at, batch.positions], 1), mask, past, states)
    chosen = batch.targets != IGNORE
    logits = model.lm_head(hidden[:, tokens:][chosen])
    targets, weights = batch.targets[chosen], batch.weights[chosen]
    losses = F.cross_entropy(logits, targets, reduction="none")
    right = (logits.detach().argmax(-1) == targets).float().mean()
    return (losses * weights).sum() / weights.sum(), float(right)
