"""Curves of training runs, from event files as the loggers write them."""

import matplotlib.image
import pytest
from torch.utils.tensorboard import SummaryWriter

from pipeline.cli import main
from pipeline.curves import read_curves


@pytest.fixture
def run(tmp_path):
    for first, offset in ((0, 0.0), (3, 10.0)):  # interrupted after step 4, and resumed from step 3
        with SummaryWriter(str(tmp_path / "small")) as writer:
            for step in range(first, first + 5):
                writer.add_scalar("val/prompted/level_00/loss", 6 - step + offset, step)
                writer.add_scalar("train/loss", 7.0, step)
    with SummaryWriter(str(tmp_path / "small")) as writer:  # `validate` of a checkpoint
        writer.add_scalar("val/prompted/level_00/loss", 9.5, 0)
    return tmp_path / "small"


def test_a_resumed_run_is_one_curve_and_what_came_last_counts(run):
    (curve,) = read_curves(run, ["val/*/level_00/loss"])["val/*/level_00/loss"]
    assert curve.tag == "val/prompted/level_00/loss"
    assert curve.steps == [0, 1, 2, 3, 4, 5, 6, 7]
    assert curve.values == [6, 5, 4, 13, 12, 11, 10, 9]


def test_the_command_draws_a_panel_per_run(run, tmp_path):
    main(["curves", str(run), "--output", str(tmp_path / "cards/one.png"), "--tags", '["val/*loss", "train/*"]'])
    main(["curves", str(run), str(run), "--output", str(tmp_path / "two.png")])
    one, two = (matplotlib.image.imread(tmp_path / name) for name in ("cards/one.png", "two.png"))
    assert two.shape[1] > 1.5 * one.shape[1]
    assert one[..., :3].std() > 0.01  # not a blank page


def test_what_cannot_be_drawn_is_named(run, tmp_path):
    with pytest.raises(ValueError, match=r"logged nothing like val/wer, but .*train/loss"):
        read_curves(run, ["val/wer"])
    with pytest.raises(FileNotFoundError, match="none is no folder"):
        read_curves(tmp_path / "none", ["*"])
    with pytest.raises(ValueError, match=r"\.gif: the format"):
        main(["curves", str(run), "--output", str(tmp_path / "a.gif")])
