"""torch in float32: transformers' CLIP and LLaMA, and the projectors written out.

It is what there is before anything is compiled or quantized, and the truth that features are held
against. The tower's unused layers are left out, attention is torch's own fused one, and the KV
cache is transformers' default.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvlm.bench.peers.runner import FloatArray, RgbImage, Setup
from mvlm.models.checkpoint import Checkpoint, open_checkpoint
from mvlm.models.checkpoint.names import PROJECTOR_PREFIX, TOWER_PREFIX
from mvlm.models.config import MobileVLMConfig
from mvlm.models.config.read import read_config
from mvlm.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch

_FLOAT_BYTES = 4


def prepare(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Write nothing but where the checkpoint is, which torch reads as it is."""
    (folder / "checkpoint").write_text(str(checkpoint.resolve()))
    if vision_tower is not None:
        (folder / "vision_tower").write_text(str(vision_tower.resolve()))


def files(folder: Path) -> dict[str, str]:
    """Name the checkpoint."""
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def open_runner(setup: Setup) -> PyTorch:
    """Read the checkpoint into float32 modules."""
    return PyTorch(setup)


class PyTorch:
    """A model in float32 and one KV cache."""

    def __init__(self, setup: Setup) -> None:
        import torch

        torch.set_num_threads(setup.threads)
        torch.set_grad_enabled(False)
        folder = Path(setup.files["checkpoint"])
        tower = setup.files.get("vision_tower")
        config = read_config(folder, Path(tower) if tower else None)
        checkpoint = open_checkpoint(folder, Path(tower) if tower else None)
        self._torch, self._image, self._bos = torch, setup.image, setup.bos
        self._language = _language(config, checkpoint)
        self._tower = _tower(config, checkpoint) if setup.has_vision else None
        self._projector = _projector(config, checkpoint) if setup.has_vision else None
        self._past: Any = None
        self._token = 0
        self._pixels: Any = None

    def facts(self) -> dict[str, Any]:
        """Return versions, and how torch was built and set."""
        import transformers

        embedding = self._language.get_input_embeddings().weight
        weights = sum(parameter.numel() for parameter in self._language.parameters())
        if self._language.config.tie_word_embeddings:
            read = weights
        else:
            read = weights - embedding.numel() + embedding.shape[1]
        return {
            "versions": {
                "torch": self._torch.__version__,
                "transformers": transformers.__version__,
            },
            "cpu_capability": self._torch.backends.cpu.get_cpu_capability(),
            "threads": self._torch.get_num_threads(),
            "file": "float32",
            "weight_bytes_per_token": _FLOAT_BYTES * read,
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt into a new cache."""
        self._past = None
        self._run(input_ids=self._torch.tensor([ids]))

    def decode(self) -> None:
        """Decode one token."""
        self._run(input_ids=self._torch.tensor([[self._token]]))

    def set_image(self, image: RgbImage) -> None:
        """Preprocess an image as MobileVLM does."""
        from PIL import Image

        from mvlm.runtime.image import preprocess

        assert self._image is not None
        self._pixels = self._torch.from_numpy(preprocess(Image.fromarray(image), self._image))

    def encode_image(self) -> None:
        """Run tower and projector."""
        self._embedded()

    def features(self) -> FloatArray | None:
        """Return the tower's features ``(1, patches, C)``."""
        assert self._tower is not None
        found: FloatArray = self._tower(self._pixels).numpy()
        return found

    def first_token(self, image: RgbImage, ids: Sequence[int]) -> None:
        """Read an image and a question in one pass."""
        self._past = None
        self.set_image(image)
        table = self._language.get_input_embeddings()
        first, rest = (table(self._torch.tensor([part])) for part in ([self._bos], ids))
        self._run(inputs_embeds=self._torch.cat([first, self._embedded(), rest], 1))

    def _embedded(self) -> torch.Tensor:
        assert self._tower is not None and self._projector is not None
        embedded: torch.Tensor = self._projector(self._tower(self._pixels))
        return embedded

    def _run(self, **given: Any) -> None:
        found = self._language(
            **given, past_key_values=self._past, use_cache=True, logits_to_keep=1
        )
        self._past = found.past_key_values
        self._token = int(np.argmax(found.logits[0, -1].numpy()))


def _language(config: MobileVLMConfig, checkpoint: Checkpoint) -> Any:
    from dataclasses import asdict

    import transformers
    from transformers.modeling_utils import no_init_weights

    shape = transformers.LlamaConfig(**asdict(config.language), attn_implementation="sdpa")
    with no_init_weights():
        model = transformers.LlamaForCausalLM(shape)
    _fill(model, checkpoint, "")
    return model.eval()


def _tower(config: MobileVLMConfig, checkpoint: Checkpoint) -> Any:
    """The tower up to the last layer that is used: pixels to patch features."""
    from dataclasses import asdict

    import transformers
    from transformers.modeling_utils import no_init_weights

    assert config.vision is not None
    used = {"num_hidden_layers": config.num_used_vision_layers}
    shape = transformers.CLIPVisionConfig(
        **(asdict(config.vision) | used), attn_implementation="sdpa"
    )
    with no_init_weights():
        model = transformers.CLIPVisionModel(shape)
    # Of the class token alone, which nothing reads; a checkpoint need not have it.
    del model.vision_model.post_layernorm
    model.vision_model.post_layernorm = _identity()
    _fill(model.vision_model, checkpoint, TOWER_PREFIX)
    first = 0 if config.select_feature == "cls_patch" else 1
    model.eval()
    return lambda pixels: model(pixels).last_hidden_state[:, first:]


def _identity() -> Any:
    import torch

    return torch.nn.Identity()


def _projector(config: MobileVLMConfig, checkpoint: Checkpoint) -> Any:
    from mvlm.bench.peers.torch_projectors import PROJECTORS

    assert config.projector is not None
    kind = config.projector.kind
    if kind not in PROJECTORS:
        raise ConfigError(
            "this projector cannot be compared", expected=" or ".join(PROJECTORS), found=kind
        )
    model = PROJECTORS[kind](config.projector.in_features, config.projector.out_features)
    _fill(model, checkpoint, PROJECTOR_PREFIX)
    return model.eval()


def _fill(module: Any, checkpoint: Checkpoint, prefix: str) -> None:
    """Copy a checkpoint's tensors into a module's parameters, one at a time."""
    import torch

    for name, parameter in module.named_parameters():
        values = checkpoint.read(prefix + name).astype(np.float32)
        parameter.data.copy_(torch.from_numpy(values))
