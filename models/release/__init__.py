"""Writes checkpoints in the layout of the published releases.

Real weights cannot be fetched everywhere; :func:`write_synthetic` makes stand-ins with random
weights that take the same road: the same documents, tensor names, dtypes and shards.
"""

from mvlm.models.release.synthetic import write_synthetic, write_synthetic_clip

__all__ = ["write_synthetic", "write_synthetic_clip"]
