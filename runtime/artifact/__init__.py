"""The artifact: a folder whose every byte is named by its manifest.

::

    manifest.json             what this is, what it was made from, and every file's digest
    chat.json                 template, special tokens, image preprocessing, limits
    tokenizer.model           the SentencePiece model
    lib/model.so              the compiled functions
    lib/libtvm_runtime.so     the runtime that they were compiled for, and libraries that extend it
    lib/kernels.json          which kernels each function calls, and the bytes they move
    weights/*.bin             parameters, packed for the target, each aligned to 64 bytes
    weights/index.json        their names, shapes, dtypes, files and offsets

The sha256 of the canonical manifest names the artifact. :func:`verify_artifact` checks the
manifest, the digests, the machine and the versions before any library of it is loaded.
"""

from mvlm.runtime.artifact.manifest import Manifest, read_manifest
from mvlm.runtime.artifact.verify import verify_artifact, verify_files
from mvlm.runtime.artifact.weights import TensorEntry, WeightsIndex, map_weights

__all__ = [
    "Manifest",
    "TensorEntry",
    "WeightsIndex",
    "map_weights",
    "read_manifest",
    "verify_artifact",
    "verify_files",
]
