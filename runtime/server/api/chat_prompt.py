"""A conversation to what the engine takes: ids, and the pixels of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mvlm.runtime.model import FloatArray
from mvlm.runtime.server.api.prompts import read_conversation
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.service import Service


async def chat_prompt(
    service: Service, served: ServedModel, messages: Sequence[Any], where: str = "messages"
) -> tuple[list[int], list[FloatArray]]:
    """Write a conversation as the model's prompt, and read its images.

    Args:
        service: The server's limits.
        served: The model.
        messages: As OpenAI's chat API has them.
        where: The field that holds them, for errors.

    Raises:
        ApiError: A message is not understood, or there are too many images, or one cannot be
            fetched.
        ImageError: One is none that is read.
        PromptError: A question is empty, or the model reads text only.
    """
    service.check_room()
    conversation = read_conversation(messages, service.settings.max_images, where)
    files = await service.images.files(conversation.images)
    ids = served.tokenizer.encode_prompt(conversation.render(served.template))
    return ids, await served.pixels(files)
