"""The quantiser under DDP."""

import torch
from torch import distributed as dist
from torch import multiprocessing

from modules.codec.soundstream.quantizer import ResidualVectorQuantizer


def _train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(rank)
    quantizer = ResidualVectorQuantizer(4, 2, 8, decay=0.5, init_frames=64, dead_code_threshold=0.5).train()
    for _ in range(6):
        quantizer(torch.randn(4, 16, 4) + 4 * rank)
    torch.save(quantizer.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_codebooks_of_two_ranks_stay_equal(tmp_path):
    # Forking spares two imports of torch, which would take longer than everything else.
    multiprocessing.start_processes(_train, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["started"]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    # The codebook covers both ranks' vectors, around 0 and around 4.
    places = first["codebooks"][0].mean(1)
    assert places.min() < 1
    assert places.max() > 3
