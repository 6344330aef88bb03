"""Writes the table of published models: ``python -m mvlm.models.model_zoo_table``.

A test compares it with what is in the documentation.
"""

from __future__ import annotations

import re
from pathlib import Path

from mvlm.models.model_zoo import PUBLISHED_MODELS

DOCUMENT = Path("docs/models.md")
_TABLE = re.compile(r"(?<=model_zoo_table` -->\n).*?(?=<!-- /published-models -->)", re.DOTALL)


def table() -> str:
    """Return the table as Markdown."""
    lines = [
        "| name | at huggingface.co | hidden | ffn | layers | heads | head_dim | positions | eps "
        "| projector | tower |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for published in PUBLISHED_MODELS.values():
        decoder = published.decoder
        tower = {None: "none", "ldpnet": "its own folder", "ldpnetv2": "inside"}[
            published.projector
        ]
        cells = [
            published.name,
            ", ".join(f"`{repository}`" for repository in published.repositories),
            f"{decoder.hidden_size}",
            f"{decoder.intermediate_size}",
            f"{decoder.num_hidden_layers}",
            f"{decoder.num_attention_heads}",
            f"{decoder.head_dim}",
            f"{decoder.max_position_embeddings}",
            f"{decoder.rms_norm_eps:g}",
            f"`{published.projector}`" if published.projector else "none",
            tower,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """Return the document with the table in its place."""
    return _TABLE.sub(lambda _: table(), text)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
