"""OpenAI's npm package."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.server.conftest import NAME, Running
from tests.runtime.server.test_chat_api import ask, picture, shown

pytestmark = pytest.mark.chat
SCRIPT = Path(__file__).with_name("openai_client.mjs")


def test_the_npm_client(server: Running, node_packages: Path) -> None:
    (image,) = shown(picture())
    environment = {
        "NODE_PACKAGES": str(node_packages),
        "BASE_URL": f"{server.url}/v1",
        "MODEL": NAME,
        "IMAGE": image["image_url"]["url"],
    }
    done = subprocess.run(
        ["node", SCRIPT], env=os.environ | environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    server.wait_until_idle()

    messages = [{"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]}]
    expected = ask(server, messages)
    assert found["models"] == [NAME]
    assert found["whole"] == found["streamed"] == expected.choices[0].message.content
    assert set(found["logprobs"]) == {2}
    for usage in found["usage"], found["streamUsage"]:
        assert usage["prompt_tokens"] == expected.usage.prompt_tokens
        assert usage["completion_tokens"] == expected.usage.completion_tokens
    assert found["structured"]["kind"] in ("person", "animal") and found["structured"]["age"] in (
        1,
        2,
        3,
    )
    unknown = {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
    assert found["errors"]["model"] == unknown
    assert found["errors"]["field"]["kind"] == "BadRequestError"
    assert found["errors"]["field"]["param"] == "temperature"
    assert found["left"] == 3
    assert found["completion"].startswith("Once")
