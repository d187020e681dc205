"""The picture of tokens filling up."""

import pytest
import torch
from PIL import Image

from modules.soundstorm import DecodingSchedule, SoundStormNetwork, decode
from pipeline.raster import draw_raster, filling


@pytest.fixture(scope="module")
def decoded():
    torch.manual_seed(0)
    network = SoundStormNetwork(16, 1, 2, 32, 5, 3, 16, 10)
    prompt, schedule = torch.randint(16, (1, 3, 8)), DecodingSchedule(iterations=(4, 2, 1))
    return decode(network, torch.randint(10, (1, 30)), prompt, schedule=schedule, return_trace=True)


def test_every_token_after_the_prompt_is_fixed_by_a_pass_of_its_level(decoded):
    codes, passes = decoded
    fixed_by = filling(3, passes)
    assert fixed_by.shape == codes[0].shape
    assert (fixed_by[:, :8] == 0).all()
    for level, numbers in enumerate(({1, 2, 3, 4}, {5, 6}, {7})):
        assert set(fixed_by[level, 8:].tolist()) == numbers


def test_a_gif_has_a_picture_per_pass_and_stays_at_the_end(decoded, tmp_path):
    codes, passes = decoded
    draw_raster(codes[0], passes, 50.0, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames >= len(passes) + 1  # pictures that are equal are one, shown longer
        image.seek(0)
        first = image.convert("RGB").tobytes()
        image.seek(image.n_frames - 1)
        assert image.convert("RGB").tobytes() != first


def test_a_png_is_the_end(decoded, tmp_path):
    draw_raster(decoded[0][0], decoded[1], 50.0, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 16
