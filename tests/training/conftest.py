"""A tokenizer trained on few questions, which takes seconds instead of a minute."""

import pytest

from mvlm.training import tokenizer
from mvlm.training.prompt import Prompter


@pytest.fixture(scope="package")
def prompter():
    kept, tokenizer.SAMPLES = tokenizer.SAMPLES, 1500
    try:
        return Prompter(tokenizer.train_tokenizer(0))
    finally:
        tokenizer.SAMPLES = kept
