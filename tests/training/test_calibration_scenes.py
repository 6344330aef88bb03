"""The scenes that calibration uses by default are those that the script draws."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mvlm.training.calibration_scenes import SCENES, write

SHIPPED = Path(__file__).parents[2] / "compile" / "calibration_data" / "default"


def test_the_script_draws_the_default_scenes_again(tmp_path):
    write(tmp_path, 12)
    drawn = json.loads((tmp_path / "scenes.json").read_text())
    shipped = json.loads((SHIPPED / "scenes.json").read_text())
    assert drawn == shipped[:12] and len(shipped) == SCENES
    for entry in drawn:
        # An edge may be a pixel off where another processor rounds a cosine differently.
        ours, theirs = (
            np.asarray(Image.open(folder / entry["image"]), np.float32)
            for folder in (tmp_path, SHIPPED)
        )
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 1


def test_questions_about_a_scene_differ_and_the_first_shows_the_image(tmp_path):
    write(tmp_path, 8)
    entries = json.loads((tmp_path / "scenes.json").read_text())
    assert len(entries) == 8
    for entry in entries:
        said = [turn["value"] for turn in entry["conversations"]]
        assert 1 <= len(said) // 2 <= 8 and len(set(said[::2])) == len(said) // 2
        assert [text.count("<image>") for text in said] == [1] + [0] * (len(said) - 1)
