"""The torch model: packing changes nothing, 4-bit rounding, export layout, batched answers."""

import json
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mvlm.training.batches import IGNORE, conversations, pack
from mvlm.training.export import MODEL_FOLDER, TOWER_FOLDER, export, load
from mvlm.training.generate import answers
from mvlm.training.model.clip import ClipConfig
from mvlm.training.model.ldp import squeeze_channels
from mvlm.training.model.llama import LlamaConfig, quantize_4bit
from mvlm.training.model.mobilevlm import ModelConfig, build
from mvlm.training.optimizer import optimizer_for, orthogonalize
from mvlm.training.prompt import IMAGE
from mvlm.training.stages import answer_loss
from mvlm.training.world.questions import ask
from mvlm.training.world.scene import random_scene

CONFIG = ModelConfig(
    ClipConfig(image_size=48, patch_size=12, width=32, heads=2, layers=2),
    LlamaConfig(vocab_size=800, hidden=64, ffn=96, layers=2, max_positions=512),
)


@pytest.fixture
def parts():
    return build(CONFIG, 0)


def plain_loss(model, features, prompter, scene, questions):
    """The loss of one conversation, computed on the plain sequence of the official prompt."""
    ids = prompter.prompt([(q.text, q.answer) for q in questions[:-1]], questions[-1].text)
    ids += prompter.answer(questions[-1].answer)
    at = ids.index(IMAGE)
    body = model.model
    image = body.mm_projector(features)[0]
    before, after = torch.tensor(ids[:at]), torch.tensor(ids[at + 1 :])
    x = torch.cat([body.embed_tokens(before), image, body.embed_tokens(after)])[None]
    hidden, _ = body(x, torch.arange(x.shape[1])[None])
    logits = model.lm_head(hidden[0, -len(after) :])
    packed = pack([[questions]], [scene], prompter, at + len(image))
    keep = packed.targets[0] != IGNORE
    losses = torch.nn.functional.cross_entropy(
        logits[:-1][keep], packed.targets[0][keep], reduction="none"
    )
    weights = packed.weights[0][keep]
    return (losses * weights).sum(), weights.sum()


@torch.no_grad()
def test_packed_conversations_cost_what_they_cost_alone(parts, prompter):
    _, model = parts
    rng, words = np.random.default_rng(1), Random(1)
    scenes, rows = [random_scene(rng) for _ in range(3)], []
    for scene in scenes:
        asked = [ask(scene, words) for _ in range(7)]
        rows.append([asked[:1], asked[1:5], asked[5:]])
    features = torch.randn(3, CONFIG.clip.grid**2, CONFIG.clip.width)
    start = len(prompter.before_image()) + CONFIG.image_tokens
    image = model.model.mm_projector(features)
    loss, _ = answer_loss(model, image, pack(rows, scenes, prompter, start), prompter)
    single = [
        plain_loss(model, features[row : row + 1], prompter, scenes[row], chain)
        for row, chains in enumerate(rows)
        for chain in chains
    ]
    expected = sum(cost for cost, _ in single) / sum(weight for _, weight in single)
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_conversations_hold_all_the_questions_asked_for():
    rng, words = np.random.default_rng(0), Random(0)
    longest = 0
    for _ in range(200):
        chains = conversations(random_scene(rng), 8, words)
        assert sum(map(len, chains)) == 8
        longest = max(longest, *map(len, chains))
    assert longest >= 6


def test_four_bit_rounding_keeps_groups_symmetric():
    weight = torch.randn(6, 64)
    rounded = quantize_4bit(weight)
    levels = torch.stack([group.unique() for group in rounded.view(-1, 32)[:1]])
    assert levels.numel() <= 15
    error = (rounded - weight).abs().view(-1, 32).amax(-1)
    step = weight.abs().view(-1, 32).amax(-1) / 7
    assert bool((error <= 0.51 * step).all())
    assert torch.equal(quantize_4bit(torch.zeros(2, 32)), torch.zeros(2, 32))


def test_muon_makes_updates_nearly_orthogonal():
    update = orthogonalize(torch.randn(2, 24, 48))
    singular = torch.linalg.svdvals(update)
    assert bool((singular > 0.5).all() and (singular < 1.4).all())


def test_a_weight_without_a_gradient_stays_as_it_is():
    at_rest, learning = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    before = [weight.detach().clone() for weight in at_rest.parameters()]
    optimizer = optimizer_for(at_rest, learning)
    for _ in range(3):
        learning(torch.randn(4, 8)).square().sum().backward()
        optimizer.step(0.1)
    for weight, old in zip(at_rest.parameters(), before, strict=True):
        assert torch.equal(weight, old)


def test_training_steps_lower_the_loss(parts, prompter):
    _, model = parts
    rng, words = np.random.default_rng(2), Random(2)
    scene = random_scene(rng)
    rows = [conversations(scene, 6, words)]
    start = len(prompter.before_image()) + CONFIG.image_tokens
    packed = pack(rows, [scene], prompter, start)
    features = torch.randn(1, CONFIG.clip.grid**2, CONFIG.clip.width)
    optimizer = optimizer_for(model)
    losses = []
    for _ in range(12):
        loss, _ = answer_loss(model, model.model.mm_projector(features), packed, prompter)
        loss.backward()
        optimizer.step(3e-3)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_export_has_the_official_layout_and_loads_back(parts, prompter, tmp_path):
    tower, model = parts
    export(tmp_path, tower, model, prompter.pieces.serialized_model_proto())
    folder = tmp_path / MODEL_FOLDER
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MobileLlamaForCausalLM"]
    assert (folder / config["mm_vision_tower"]).resolve() == (tmp_path / TOWER_FOLDER).resolve()
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {str(file.get_slice(n).get_dtype()) for n in names} == {"F16"}
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} <= names
    projector = "model.mm_projector.model"
    for block in ("1", "2"):
        inner = [f"{projector}.mb_block.{block}.block.{n}" for n in ("0.0", "0.1", "2.0", "2.1")]
        assert {f"{n}.weight" for n in inner} <= names
        assert f"{projector}.mb_block.{block}.block.1.fc1.bias" in names
    assert not any("vision" in name for name in names)
    with safe_open(tmp_path / TOWER_FOLDER / "model.safetensors", "pt") as file:
        assert {
            "vision_model.embeddings.class_embedding",
            "vision_model.pre_layrnorm.weight",
            "vision_model.encoder.layers.1.self_attn.out_proj.bias",
            "vision_model.post_layernorm.bias",
        } <= set(file.keys())
    again, model_again, tokenizer = load(tmp_path)
    for mine, other in ((tower, again), (model, model_again)):
        for name, value in mine.state_dict().items():
            assert torch.equal(value.half().float(), other.state_dict()[name]), name
    assert tokenizer == prompter.pieces.serialized_model_proto()


def test_batched_answers_are_those_of_one_at_a_time(parts, prompter):
    tower, model = parts
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(3)]
    prompts = [
        prompter.prompt([], "What is this?"),
        prompter.prompt([("Is there a red circle?", "Yes.")], "Where is the red circle?"),
        prompter.prompt([], "How many?"),
    ]
    together = answers(tower, model, prompter, images, prompts, batch=3)
    alone = answers(tower, model, prompter, images, prompts, batch=1)
    assert together == alone
    assert len(set(together)) > 1 or together[0]


@pytest.mark.parametrize(("channels", "squeezed"), [(64, 16), (192, 48), (2048, 512), (2560, 640)])
def test_squeeze_channels(channels, squeezed):
    assert squeeze_channels(channels) == squeezed
