"""litellm: its own form of calls, by the OpenAI provider."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.server.conftest import NAME, Running
from tests.runtime.server.test_chat_api import ask, picture, shown

pytestmark = pytest.mark.chat
SCRIPT = """
import json, os, sys
import litellm
litellm.telemetry = False
messages = json.loads(os.environ["MESSAGES"])
common = dict(model="openai/" + os.environ["MODEL"], api_base=os.environ["BASE_URL"],
              api_key="none", temperature=0, max_tokens=20, num_retries=0)
whole = litellm.completion(messages=messages, **common)
stream = litellm.completion(messages=messages, stream=True, **common)
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
schema = {"type": "object", "properties": {"age": {"enum": [1, 2]}}, "required": ["age"],
          "additionalProperties": False}
form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
structured = litellm.completion(messages=messages, response_format=form, **common)
try:
    litellm.completion(messages=messages, **(common | {"model": "openai/unknown"}))
    error = None
except litellm.NotFoundError as raised:
    error = raised.status_code
print(json.dumps({
    "whole": whole.choices[0].message.content, "stream": text,
    "usage": dict(whole.usage)["prompt_tokens"],
    "structured": json.loads(structured.choices[0].message.content), "error": error}))
"""


def test_litellm(server: Running, client_programs: Path) -> None:
    parts = [*shown(picture()), {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": parts}]
    environment = {
        "MESSAGES": json.dumps(messages),
        "MODEL": NAME,
        "BASE_URL": f"{server.url}/v1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run(
        [client_programs / "python", "-c", SCRIPT],
        env=os.environ | environment,
        capture_output=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    expected = ask(server, messages)
    assert told["whole"] == told["stream"] == expected.choices[0].message.content
    assert told["usage"] == expected.usage.prompt_tokens
    assert told["structured"]["age"] in (1, 2) and told["error"] == 404
