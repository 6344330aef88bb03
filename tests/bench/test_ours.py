"""Our own runner, as the worker of a benchmark calls it."""

from __future__ import annotations

from mvlm.bench.peers.ours import Ours, open_runner
from mvlm.bench.peers.runner import BatchRunner, Setup
from tests.artifacts import ArtifactCache

CONTEXT = 32
PROMPT = [1, *range(5, 24)]


def runner(artifact_cache: ArtifactCache, sequences: int = 1) -> Ours:
    files = {"artifact": str(artifact_cache.artifact("text"))}
    context = CONTEXT * sequences
    return open_runner(Setup(files, 1, context, 384, 1, None, False, sequences))


def test_it_decodes_until_the_context_is_full(artifact_cache: ArtifactCache) -> None:
    ours = runner(artifact_cache)
    for _ in range(2):
        ours.prefill(PROMPT)
        for _ in range(CONTEXT - len(PROMPT)):
            ours.decode()


def test_it_decodes_several_sequences_at_once(artifact_cache: ArtifactCache) -> None:
    ours = runner(artifact_cache, sequences=3)
    assert isinstance(ours, BatchRunner)
    for _ in range(2):
        ours.begin_batch([PROMPT, PROMPT[::-1], PROMPT[1:]])
        counts = [len(answer.tokens) for answer in ours._answers]
        for _ in range(CONTEXT - len(PROMPT)):
            ours.decode_batch()
        found = [len(answer.tokens) for answer in ours._answers]
        assert found == [count + CONTEXT - len(PROMPT) for count in counts]
