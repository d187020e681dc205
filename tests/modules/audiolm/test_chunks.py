import pytest
import torch

from modules.audiolm.chunks import Slide, cut, join, slides


def test_thirty_seconds_take_four_chunks_of_ten_with_three_of_prompt():
    plan = slides(1500, 0, 500, 150)
    assert plan == [Slide(0, 0, 500), Slide(350, 150, 850), Slide(700, 150, 1200), Slide(1050, 150, 1500)]


@pytest.mark.parametrize(
    ("length", "prompt", "expected"),
    [
        (400, 0, [Slide(0, 0, 400)]),
        (400, 150, [Slide(0, 150, 400)]),
        (400, 400, []),
        (600, 150, [Slide(0, 150, 500), Slide(350, 150, 600)]),
        (800, 500, [Slide(350, 150, 800)]),
        (800, 620, [Slide(470, 150, 800)]),
    ],
)
def test_slides_begin_with_the_prompt_and_end_with_the_row(length, prompt, expected):
    assert slides(length, prompt, 500, 150) == expected


def test_cutting_keeps_every_frame_once_and_joining_undoes_it():
    lengths = torch.tensor([7, 3, 6])
    rows = torch.arange(1, 22).view(3, 7) * (torch.arange(7) < lengths[:, None])
    chunks = cut([rows, rows[:, None]], lengths, 3)
    assert chunks.lengths.tolist() == [3, 3, 1, 3, 3, 3]
    assert chunks.row.tolist() == [0, 0, 0, 1, 2, 2]
    assert chunks.start.tolist() == [0, 3, 6, 0, 0, 3]
    assert chunks.tokens[0][2].tolist() == [7, 0, 0]
    back = torch.zeros(3, 1, 7, dtype=torch.int64)
    join(chunks.tokens[1], chunks.start, chunks.row, back)
    assert torch.equal(back[:, 0], rows)


def test_rows_shorter_than_a_chunk_stay_as_they_are():
    rows, lengths = torch.randn(2, 4, 5), torch.tensor([5, 2])
    chunks = cut([rows], lengths, 100)
    assert torch.equal(chunks.tokens[0], rows)
    assert torch.equal(chunks.lengths, lengths)
