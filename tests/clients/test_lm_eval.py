"""lm-evaluation-harness by `local-completions`, with nothing but the address and the name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.engine import Engine, Request
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import Tokenizer
from tests.runtime.server.conftest import NAME, Running

pytestmark = pytest.mark.chat
CHOICE = """\
task: choice
dataset_path: json
dataset_kwargs:
  data_files: {test: "%s"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
CONTINUE = """\
task: continue
dataset_path: json
dataset_kwargs:
  data_files: {test: "%s"}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {max_gen_toks: 8, until: ["\\n\\n"]}
metric_list: [{metric: exact_match}]
"""
QUESTIONS = [
    {"question": "The grass is", "choices": ["green", "red and blue"], "answer": 0},
    {"question": "The sky has the colour", "choices": ["yellow", "blue"], "answer": 1},
    {"question": "One and one are", "choices": ["two", "three", "a number"], "answer": 0},
]


def logprob(model: Model, tokenizer: Tokenizer, question: str, choice: str) -> float:
    """The log probability of a choice behind its question, by the engine itself."""
    before = tokenizer.encode(question, bos=False)
    ids = tokenizer.encode(f"{question} {choice}", bos=False)
    engine = Engine(model)
    request = Request(ids, params=SamplingParams(max_tokens=1), prompt_logprobs=0)
    (answer,) = engine.submit(request)
    assert len(list(engine.tokens(answer))) == 1
    known = [each for each in answer.prompt_logprobs[len(before) :] if each is not None]
    assert len(known) == len(ids) - len(before) > 0
    return sum(each.logprob for each in known)


def test_lm_eval(server: Running, client_programs: Path, tmp_path: Path) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    (tmp_path / "choice.yaml").write_text(CHOICE % data)
    (tmp_path / "continue.yaml").write_text(CONTINUE % data)
    arguments = [
        "--model", "local-completions",
        "--model_args", f"base_url={server.url}/v1/completions,model={NAME}",
        "--tasks", "choice,continue",
        "--include_path", str(tmp_path),
        "--output_path", str(tmp_path / "out"),
        "--log_samples",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [client_programs / "lm_eval", *arguments],
        env=os.environ | offline,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]

    model = Model(server.served.model.folder, 2)
    tokenizer = Tokenizer(model.folder / TOKENIZER, legacy=model.settings.legacy_tokenizer)
    (samples,) = (tmp_path / "out").rglob("samples_choice_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(rows) == len(QUESTIONS)
    for row in rows:
        doc = row["doc"]
        told = [float(resp[0][0]) for resp in row["resps"]]
        expected = [logprob(model, tokenizer, doc["question"], each) for each in doc["choices"]]
        assert told == pytest.approx(expected, abs=1e-4)
    (samples,) = (tmp_path / "out").rglob("samples_continue_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(rows) == len(QUESTIONS) and all(row["resps"] for row in rows)
