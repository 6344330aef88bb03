"""Training sequences: many questions about one image in one row, without seeing each other.

The system prompt and the image's tokens are the same for every question about an image, so a
row holds them once (the system prompt even once a batch) and then several *chains*. A chain is
one conversation: its tokens attend to the prefix and to the earlier tokens of the same chain, and
its positions go on from the prefix. What the model computes is what it would compute for each
conversation on its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from mvlm.training.grounding import phrases, spoken_shapes
from mvlm.training.prompt import Prompter
from mvlm.training.smalltalk import SMALLTALK
from mvlm.training.world.questions import Question, ask
from mvlm.training.world.scene import Scene

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Text of a batch, padded to (rows, length).

    `ids`: what to embed; `chain`: chain number, -1 for padding; `positions`: absolute; `targets`:
    the id that should follow, IGNORE where nothing is learned; `weights`: of each target;
    `meant` and `spoken`: the numbers from 1 of the shapes that a phrase ending here means, and
    that the next token is said of (see `grounding`), 0 for none; `counts`: how many shapes a phrase
    ending here fits, -1 where none ends.
    """

    ids: Tensor
    chain: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    meant: Tensor
    counts: Tensor
    spoken: Tensor


def conversations(scene: Scene, pairs: int, rng: Random) -> list[list[Question]]:
    """Chains about one scene: mostly single questions, else conversations of 2 to `pairs` turns."""
    asked = [ask(scene, rng) for _ in range(pairs)]
    if rng.random() < 0.15:
        text, answer = SMALLTALK[int(rng.random() * len(SMALLTALK))]
        asked[-1] = Question("smalltalk", text, answer)
    if rng.random() < 0.65:
        return [[question] for question in asked]
    rng.shuffle(asked)
    chains = []
    while asked:
        turns = rng.randint(2, pairs)
        chains.append(asked[:turns])
        asked = asked[turns:]
    return chains


def pack(
    rows: Sequence[list[list[Question]]], scenes: Sequence[Scene], prompter: Prompter, start: int,
    longest: int = 10**9,
) -> Batch:  # fmt: skip
    """Packs the chains of each row, one scene's; their positions begin at `start`.

    A chain that would make its row longer than `longest` tokens is left out: rows of nearly one
    length waste little on padding.
    """
    packed = []
    for chains, scene in zip(rows, scenes, strict=True):
        row: _Columns = {name: [] for name in _FILLERS}
        for number, questions in enumerate(chains):
            tokens = _chain(questions, scene, prompter)
            length = len(tokens["ids"])
            if row["ids"] and len(row["ids"]) + length > longest:
                continue
            tokens |= {"chain": [number] * length, "positions": [*range(start, start + length)]}
            for name, values in tokens.items():
                row[name].extend(values)
        packed.append(row)
    width = max(len(row["ids"]) for row in packed)
    return Batch(
        **{
            name: torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in packed])
            for name, filler in _FILLERS.items()
        }
    )


#: A token's values by the names of `Batch`, a list of each.
_Columns = dict[str, list[Any]]
#: What stands behind the end of a row.
_FILLERS = {
    "ids": 0, "chain": -1, "positions": 0, "targets": IGNORE, "weights": 0.0,
    "meant": 0, "counts": -1, "spoken": 0,
}  # fmt: skip


def _chain(questions: list[Question], scene: Scene, prompter: Prompter) -> _Columns:
    """One conversation, without chain number and positions."""
    row: _Columns = defaultdict(list)
    for turn, question in enumerate(questions):
        prompt = (prompter.next_turn if turn else prompter.first_turn)(question.text)
        answer = prompter.answer(question.answer)
        # The last prompt token predicts the first answer token, and so on; the closing </s> is
        # itself an input only if another turn follows.
        last = turn == len(questions) - 1
        wanted = [IGNORE] * (len(prompt) - 1) + list(answer) + ([] if last else [IGNORE])
        row["ids"] += [*prompt, *(answer[:-1] if last else answer)]
        row["targets"] += wanted
        # Long answers would otherwise drown the one-word ones; some more weight is theirs, because
        # every word of a list is a question of its own.
        row["weights"] += [len(answer) ** -0.65] * len(wanted)
        asked = phrases(prompter.spell(prompt), scene)
        spoken = spoken_shapes(prompter.spell(answer), question, asked, scene)
        after = len(wanted) - len(prompt)
        row["meant"] += [*(phrase.shape if phrase else 0 for phrase in asked), *[0] * after]
        row["counts"] += [*(phrase.count if phrase else -1 for phrase in asked), *[-1] * after]
        # The token in front of each is where it must be known.
        row["spoken"] += [*[0] * (len(prompt) - 1), *spoken, 0][: len(wanted)]
    return row


def attention_mask(chain: Tensor, system: int, image: int) -> Tensor:
    """Who may look at whom: (rows, 1, image + length, system + image + length), True for yes."""
    rows, length = chain.shape
    own = chain[:, :, None] == chain[:, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool).tril()
    text = own & earlier
    total = image + length
    mask = torch.zeros(rows, total, system + total, dtype=torch.bool)
    mask[:, :, :system] = True
    mask[:, :image, system : system + image] = torch.ones(image, image, dtype=torch.bool).tril()
    mask[:, image:, system : system + image] = True
    mask[:, image:, system + image :] = text
    return mask[:, None]
