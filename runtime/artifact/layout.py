"""Names of the files and functions of an artifact, and the limits that a reader holds them to."""

MANIFEST = "manifest.json"
CHAT = "chat.json"
TOKENIZER = "tokenizer.model"
LIBRARIES = "lib"
MODEL_LIBRARY = f"{LIBRARIES}/model.so"
RUNTIME_LIBRARY = f"{LIBRARIES}/libtvm_runtime.so"
KERNELS = f"{LIBRARIES}/kernels.json"
WEIGHTS = "weights"
WEIGHTS_INDEX = f"{WEIGHTS}/index.json"

REQUIRED_FILES = (
    CHAT,
    TOKENIZER,
    MODEL_LIBRARY,
    RUNTIME_LIBRARY,
    KERNELS,
    WEIGHTS_INDEX,
)

# A tensor takes 130 bytes of index, and models of 7 billion have hundreds of tensors. Malicious
# JSON takes up to 27 times its size once parsed.
MAX_JSON_BYTES = 1 << 20
MAX_FILES = 1_000
MAX_RUNTIME_LIBRARIES = 8
WEIGHT_ALIGNMENT = 64
MAX_CONTEXT = 1 << 20
# Rows that `decode_few` takes, and rows whose logits `prefill` computes, in one call.
MOST_FEW_ROWS = 16
# The vision tower is computed by some functions, a part of its layers each.
VISION_TOWER = "vision_tower"


def tower_part(number: int) -> str:
    """Return the name of the function that computes a part of the vision tower, from 0 on."""
    return f"{VISION_TOWER}_{number + 1}" if number else VISION_TOWER


def whole_function(name: str) -> str:
    """Return the name of the function that another is a part of, or else its own name."""
    return VISION_TOWER if name.startswith(VISION_TOWER) else name
