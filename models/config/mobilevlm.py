"""The configuration of a whole MobileVLM, or of a MobileLLaMA that only reads text."""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.projector import ProjectorConfig
from mvlm.models.config.text import GenerationConfig, TokenizerConfig
from mvlm.models.json_config import check_choice, check_integer
from mvlm.runtime.errors import ConfigError
from mvlm.runtime.image import ImageSpec


@dataclass(frozen=True)
class MobileVLMConfig:
    """All that is known of a model before its weights are read.

    Args:
        language: The decoder.
        vision: The tower; None for a model of text only, and then so are `projector` and `image`.
        projector: Between the two.
        select_layer: Which of the tower's hidden states is used, counted as transformers counts
            them: 0 is the embedding's output, n the output of the n-th layer, and -1 the last;
            negative numbers count from the end. MobileVLM says -2.
        select_feature: `patch` drops the class token, `cls_patch` keeps it in front.
        image: Preprocessing.
        generation: Special token ids.
        tokenizer: How text is tokenized.
        extra_tokens: Tokens that MobileVLM's own loader adds to the tokenizer and grows the
            embedding for, because the checkpoint has `mm_use_im_patch_token` (true when absent)
            or `mm_use_im_start_end`. Their rows are untrained and no prompt contains them, so
            nothing is added here; the names are kept for comparing vocabularies.
        warnings: What the files ask for and mvlm ignores, one sentence each, for the user.

    Raises:
        ConfigError: A value is of the wrong type, out of range, or contradicts another.
    """

    language: LlamaConfig
    vision: ClipVisionConfig | None
    projector: ProjectorConfig | None
    select_layer: int
    select_feature: str
    image: ImageSpec | None
    generation: GenerationConfig
    tokenizer: TokenizerConfig
    extra_tokens: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("mm_vision_select_feature", self.select_feature, ("patch", "cls_patch"))
        self._check_token_ids()
        if self.vision is not None and self.projector is not None and self.image is not None:
            self._check_vision(self.vision, self.projector, self.image)
        elif (self.vision, self.projector, self.image) != (None, None, None):
            raise ConfigError("vision, projector and image go together: give all three or none")

    def _check_token_ids(self) -> None:
        generation = self.generation
        last = self.language.vocab_size - 1
        check_integer("bos_token_id", generation.bos_token_id, 0, last)
        for eos in generation.eos_token_ids:
            check_integer("eos_token_id", eos, 0, last)

    def _check_vision(
        self, vision: ClipVisionConfig, projector: ProjectorConfig, image: ImageSpec
    ) -> None:
        layers = vision.num_hidden_layers
        check_integer("mm_vision_select_layer", self.select_layer, -layers - 1, layers)
        if self.select_feature == "cls_patch" and projector.needs_grid:
            raise ConfigError(
                f"the projector `{projector.kind}` has no place for a class token",
                expected="`mm_vision_select_feature` to be 'patch'",
                found="'cls_patch'",
            )
        for problem, expected, found in (
            ("`mm_hidden_size` is not the tower's", vision.hidden_size, projector.in_features),
            ("the projector's width", self.language.hidden_size, projector.out_features),
            ("the image's size is not the tower's", vision.image_size, image.size),
        ):
            if expected != found:
                raise ConfigError(problem, expected=expected, found=found)

    @property
    def num_used_vision_layers(self) -> int:
        """Layers of the tower that are computed, from the first; 0 without a tower."""
        if self.vision is None:
            return 0
        states = self.vision.num_hidden_layers + 1
        return self.select_layer % states

    @property
    def num_vision_tokens(self) -> int:
        """Tokens that the tower hands to the projector for one image; 0 without a tower."""
        if self.vision is None:
            return 0
        return self.vision.num_patches + (self.select_feature == "cls_patch")

    @property
    def image_tokens(self) -> int:
        """Positions that one image takes in the decoder's context; 0 without a tower."""
        return self.projector.num_tokens(self.num_vision_tokens) if self.projector else 0
