"""Writes synthetic checkpoints: the layout of the published releases with random weights.

Real weights cannot be fetched everywhere. A synthetic checkpoint has the same documents, tensor
names, dtypes and shards as a release, so that the same code reads and compiles it.
"""

from mvlm.models.synthetic.checkpoint import write_synthetic, write_synthetic_clip

__all__ = ["write_synthetic", "write_synthetic_clip"]
