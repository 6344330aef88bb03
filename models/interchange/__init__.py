"""Other tools' formats: mlc-llm's weights, GGUF for llama.cpp, ONNX.

Each module writes one format; the packages that they need come with the extra `convert`.
"""

from mvlm.models.interchange.convert import Conversion, convert

__all__ = ["Conversion", "convert"]
