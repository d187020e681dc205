"""The codec's reconstruction as a generator."""

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from modules.batches import TokenBatch
from modules.codec import CodecReconstruction


def test_true_codes_pass_through_as_generated_without_a_prompt():
    batch = TokenBatch(
        ids=["a", "b"],
        semantic=torch.randint(100, (2, 9)),
        codes=torch.randint(16, (2, 4, 9)),
        lengths=torch.tensor([9, 5]),
        prompt_frames=torch.tensor([3, 2]),
        seeds=torch.tensor([11, 12]),
        speakers=["x", "y"],
        texts=["one", "two"],
        prompt_ids=["", "c"],
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (generated,) = trainer.predict(CodecReconstruction(), DataLoader([batch], batch_size=None))
    assert torch.equal(generated.codes, batch.codes)
    assert torch.equal(generated.lengths, batch.lengths)
    assert torch.equal(generated.seeds, batch.seeds)
    assert generated.prompt_frames.tolist() == [0, 0]
    for name in ("ids", "speakers", "texts", "prompt_ids"):
        assert getattr(generated, name) == getattr(batch, name)
