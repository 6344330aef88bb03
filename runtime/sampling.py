"""Choosing the next token from the logits.

The steps and their order are those of ``transformers``' ``generate``: repetition penalty (Keskar et
al. 2019, arXiv:1909.05858, section 4.1), temperature, top-k, top-p (Holtzman et al. 2019,
arXiv:1904.09751, section 3.1). Temperature 0 is greedy decoding. Between repetition penalty and
temperature come what OpenAI's API has instead: logit bias, and presence and frequency penalties of
the answer's tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import MvlmError, UsageError

_MAX_STOPS = 16
_MAX_STOP_LENGTH = 256
_MAX_BIASES = 1024


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is decoded, and when it ends.

    Attributes:
        temperature: 0 takes the best token each time; larger is more random.
        top_p: Keep the fewest best tokens whose probabilities reach this sum; 1 keeps all.
        top_k: Keep this many best tokens; 0 keeps all.
        repetition_penalty: Above 1 makes tokens that occurred less likely; 1 is off.
        presence_penalty: Is subtracted once from the score of each token of the answer.
        frequency_penalty: Is subtracted as often as the answer has a token.
        logit_bias: Ids, and what is added to their scores.
        seed: The same seed gives the same answer; ``None`` takes a fresh one.
        max_tokens: The answer's length at most, in tokens.
        stop: Texts that end the answer, besides those of the chat template.

    Raises:
        UsageError: A value is out of its range; names the option.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        # Smaller temperatures could overflow the logits; they mean greedy, which is 0.
        if self.temperature != 0:
            _check_number("temperature", self.temperature, 1e-6, 100, expected="0, or 1e-6 to 100")
        _check_number("top_p", self.top_p, 0, 1)
        _check_integer("top_k", self.top_k, 0)
        _check_number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        if self.seed is not None:
            _check_integer("seed", self.seed, 0)
        _check_integer("max_tokens", self.max_tokens, 1)
        _check_number("presence_penalty", self.presence_penalty, -2, 2)
        _check_number("frequency_penalty", self.frequency_penalty, -2, 2)
        if len(self.logit_bias) > _MAX_BIASES:
            raise UsageError(
                "logit_bias", expected=f"at most {_MAX_BIASES} ids", found=len(self.logit_bias)
            )
        for token, bias in self.logit_bias:
            _check_integer("logit_bias", token, 0)
            _check_number("logit_bias", bias, -100, 100)
        self._check_stop()

    def _check_stop(self) -> None:
        if (
            not isinstance(self.stop, tuple)
            or len(self.stop) > _MAX_STOPS
            or not all(isinstance(t, str) and 0 < len(t) <= _MAX_STOP_LENGTH for t in self.stop)
        ):
            raise UsageError(
                "stop",
                expected=f"at most {_MAX_STOPS} texts of 1 to {_MAX_STOP_LENGTH} characters",
                found=repr(self.stop),
            )


class Sampler:
    """Chooses tokens; holds the random state of one answer.

    Args:
        params: How to choose. The same seed and logits give the same tokens.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def sample(
        self,
        logits: npt.NDArray[np.float32],
        history: Iterable[int] = (),
        answer: Sequence[int] = (),
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """Choose the next token.

        Args:
            logits: Scores of all tokens, (vocab,), float32.
            history: Ids of the prompt and of the answer so far, for the repetition penalty. Ids
                that are not in the vocabulary, such as an image's, are passed over.
            answer: Ids of the answer so far, for the presence and frequency penalties.
            allowed: The tokens (vocab,) that may be chosen; all if None.

        Returns:
            An id below vocab. Greedy decoding takes the lowest of equally good ids.

        Raises:
            MvlmError: The logits are not a vector, or hold NaN or infinity.
        """
        scores = process(logits, history, self._params, answer, allowed)
        if self._params.temperature == 0:
            return int(np.argmax(scores))
        kept = np.flatnonzero(scores > -np.inf)
        cumulative = np.cumsum(_softmax(scores[kept]))
        chosen = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        # The product can round up to the whole sum, past the last token.
        return int(kept[min(int(chosen), kept.size - 1)])


def process(
    logits: npt.NDArray[np.float32],
    history: Iterable[int],
    params: SamplingParams,
    answer: Sequence[int] = (),
    allowed: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Apply penalties and biases, the mask, temperature, top-k and top-p, in this order.

    Greedy decoding (temperature 0) uses penalties, biases and the mask alone.

    Args:
        logits: (vocab,), float32.
        history: Ids seen so far.
        params: How to choose.
        answer: Those of the answer.
        allowed: The tokens (vocab,) that may be chosen; all if None.

    Returns:
        Scores (vocab,), float64; tokens that cannot be chosen have minus infinity.

    Raises:
        MvlmError: The logits are not a vector, or hold NaN or infinity.
    """
    scores = _checked(logits)
    if params.repetition_penalty != 1:
        _penalise(scores, history, params.repetition_penalty)
    for token, bias in params.logit_bias:
        if token < scores.size:
            scores[token] += bias
    if answer and (params.presence_penalty or params.frequency_penalty):
        ids, counts = np.unique(np.asarray(answer, np.int64), return_counts=True)
        scores[ids] -= params.presence_penalty + params.frequency_penalty * counts
    if allowed is not None:
        scores[~allowed] = -np.inf
    if params.temperature == 0:
        return scores
    scores /= params.temperature
    if 0 < params.top_k < scores.size:
        kth_best = np.partition(scores, -params.top_k)[-params.top_k]
        scores[scores < kth_best] = -np.inf
    if params.top_p < 1:
        _keep_nucleus(scores, params.top_p)
    return scores


def log_probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the logarithms (vocab,) of the model's own probabilities, before any penalty."""
    scores = logits.astype(np.float64)
    scores -= scores.max()
    normalised: npt.NDArray[np.float64] = scores - np.log(np.exp(scores).sum())
    return normalised


def _checked(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A float64 copy of the logits."""
    if logits.ndim != 1 or not logits.size:
        raise MvlmError("logits", expected="shape (vocab,)", found=logits.shape)
    finite = np.isfinite(logits)
    if not finite.all():
        raise MvlmError(
            "the model's logits are not finite",
            expected=f"{logits.size} numbers",
            found=f"{np.count_nonzero(~finite)} NaN or infinity, the first at token "
            f"{int(np.argmin(finite))}",
            fix="The weights are damaged, or overflow at this precision: verify the artifact, or "
            "compile with another quantization.",
        )
    return logits.astype(np.float64)


def _penalise(scores: npt.NDArray[np.float64], history: Iterable[int], penalty: float) -> None:
    """Divide positive and multiply negative scores of tokens that occurred.

    Once each, however often a token occurred: all scores are read before any is written.
    """
    ids = np.fromiter(history, dtype=np.int64)
    seen = ids[(ids >= 0) & (ids < scores.size)]
    chosen = scores[seen]
    scores[seen] = np.where(chosen < 0, chosen * penalty, chosen / penalty)


def _keep_nucleus(scores: npt.NDArray[np.float64], top_p: float) -> None:
    """Drop the worst tokens while their probabilities sum up to at most ``1 - top_p``.

    At least the best one stays; of equal ones, the lowest ids stay.
    """
    kept = np.flatnonzero(scores > -np.inf)
    probabilities = _softmax(scores[kept])
    # So unlikely that all such tokens together stay below 1 - top_p: most of a vocabulary, which
    # then need not be sorted.
    unlikely = probabilities < (1 - top_p) / kept.size
    scores[kept[unlikely]] = -np.inf
    likely, likely_probabilities = kept[~unlikely], probabilities[~unlikely]
    worst_first = np.argsort(-scores[likely], kind="stable")[::-1]
    cumulative = probabilities[unlikely].sum() + np.cumsum(likely_probabilities[worst_first])
    dropped = worst_first[:-1][cumulative[:-1] <= 1 - top_p]
    scores[likely[dropped]] = -np.inf


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    normalised: npt.NDArray[np.float64] = powers / powers.sum()
    return normalised


def _check_number(
    name: str, value: object, least: float, most: float, *, expected: str | None = None
) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # A comparison with NaN is false, so NaN is refused.
    if not (is_number and least <= float(value) <= most):  # type: ignore[arg-type]
        raise UsageError(name, expected=expected or f"{least} to {most}", found=repr(value))


def _check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise UsageError(name, expected=f"a whole number of at least {least}", found=repr(value))
