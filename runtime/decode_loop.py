"""The decode loop of one sequence: prefill a prompt, then sample and decode token by token.

It knows neither text nor conversations. Its client turns the tokens into text and measures them,
and ends the loop early, for a stop string or a cancelled answer, by asking for no more tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mvlm.runtime.model import FloatArray
from mvlm.runtime.sampling import Sampler, SamplingParams
from mvlm.runtime.session import PrefillResult, Session, Trace


class DecodeLoop:
    """Generates the tokens that follow a prompt; iterate over it once.

    Nothing is computed before it is asked for: the prompt with the first token, and each token
    after it on its own.

    Args:
        session: The sequence; the prompt takes the place of what it holds.
        ids: The prompt, with -200 in the place of each image.
        pixels: The images ``(1, 3, S, S)`` float32, one for each place.
        params: How to sample, and how many tokens at most.
        eos: Ids that end the answer.
        trace: Records every stage, and the logits of each token.

    Attributes:
        prefill: The result of prefilling the prompt; None before the first token.
    """

    def __init__(
        self,
        session: Session,
        ids: Sequence[int],
        pixels: Sequence[FloatArray],
        params: SamplingParams,
        eos: Collection[int] = (),
        trace: Trace | None = None,
    ) -> None:
        self._session, self._ids, self._pixels = session, ids, pixels
        self._params, self._eos, self._trace = params, eos, trace
        self.prefill: PrefillResult | None = None

    def __iter__(self) -> Iterator[int]:
        """Yield tokens up to an end of sequence, `max_tokens` or a full KV cache.

        Raises:
            PromptError: The prompt is empty, or the images do not match their places.
            ContextError: The prompt does not fit.
        """
        session, sampler, trace = self._session, Sampler(self._params), self._trace
        images = [session.encode_image(pixels, trace) for pixels in self._pixels]
        self.prefill = session.prefill(self._ids, images, trace)
        logits, history = self.prefill.logits, list(self._ids)
        for left in reversed(range(self._params.max_tokens)):
            if trace:
                trace.step_logits.append(logits[None])
            token = sampler.sample(logits, history)
            history.append(token)
            yield token
            if token in self._eos or not left or session.is_full:
                return
            logits = session.decode(token)
