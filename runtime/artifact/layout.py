"""Names of the files within an artifact, and the limits that a reader holds them to."""

MANIFEST = "manifest.json"
CHAT = "chat.json"
TOKENIZER = "tokenizer.model"
MODEL_LIBRARY = "lib/model.so"
RUNTIME_LIBRARY = "lib/libtvm_runtime.so"
KERNELS = "lib/kernels.json"
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
WEIGHT_ALIGNMENT = 64
MAX_CONTEXT = 1 << 20
