"""simonw's `llm`: a model of its `extra-openai-models.yaml`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.server.conftest import NAME, Running
from tests.runtime.server.test_chat_api import ask, picture, shown

pytestmark = pytest.mark.chat
MODELS = """\
- model_id: ours
  model_name: {name}
  api_base: {url}/v1
  vision: true
  supports_schema: true
"""


def test_llm(server: Running, client_programs: Path, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(name=NAME, url=server.url))
    (tmp_path / "photo.png").write_bytes(picture())

    def llm(*words: str) -> str:
        done = subprocess.run(
            [client_programs / "llm", *words],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"},
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout.decode().strip()

    options = ["-m", "ours", "-o", "temperature", "0", "-o", "max_tokens", "20"]
    parts = [{"type": "text", "text": "What is this?"}, *shown(picture())]
    expected = ask(server, [{"role": "user", "content": parts}]).choices[0].message.content
    assert llm("What is this?", *options, "-a", "photo.png") == expected
    assert llm("What is this?", *options, "-a", "photo.png", "--no-stream") == expected
    goes_on = llm("-c", "And now?", "-o", "temperature", "0", "-o", "max_tokens", "20")
    assert goes_on
    assert "ours" in llm("models")
