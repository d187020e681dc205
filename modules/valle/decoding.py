"""Generation with VALL-E's two networks, as pure functions."""

import torch
from torch import Tensor

from modules.layers import Caching, Continuation
from modules.sampling import TokenSampling
from modules.valle.autoregressive import AutoregressiveNetwork
from modules.valle.nonautoregressive import NonAutoregressiveNetwork


@torch.no_grad()
def generate_first_level(
    network: AutoregressiveNetwork,
    semantic: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    prompt_frames: Tensor,
    noise: Tensor,
    sampling: TokenSampling,
    cached: Caching = True,
) -> Tensor:
    """Generate the first level, group of frames by group of frames.

    Within a group the codes are drawn one after the other from distributions that were predicted together, so that
    what was drawn counts as history for the next (VALL-E 2, section 3.3).

    Args:
        network: The network, in evaluation mode.
        semantic: Semantic tokens, int64 ``[B, T]``.
        prompt: First-level codes of the leading frames, int64 ``[B, P]``.
        lengths: Frames per row, prompt included, ``[B]``.
        prompt_frames: Leading frames given per row, ``[B]``.
        noise: Uniform numbers, float64 ``[B, T, draws]``.
        sampling: How a code is chosen.
        cached: Whether keys and values of earlier slots are kept; otherwise they are computed anew for each group.

    Returns:
        Codes, int64 ``[B, T]``, 0 beyond a row's length.
    """
    batch, width = semantic.shape
    size, device = network.group_size, semantic.device
    codes = semantic.new_zeros(batch, width)
    codes[:, : prompt.shape[1]] = prompt
    frame = torch.arange(width, device=device)
    remaining = int((lengths - prompt_frames).max())
    if remaining > 0:
        steps = -(-remaining // size)
        # The prompt ends with a whole group.
        offset = -prompt_frames % size
        groups = (prompt_frames + offset) // size
        known = network.shift(codes, prompt_frames, offset, int(groups.max()) * size)
        x, positions, valid = network.prefix(semantic, known, lengths, groups, offset)
        following = prompt_frames[:, None] + torch.arange(1, steps, device=device) * size
        run = Continuation(network.trunk, x, positions, valid, following, cached)
        index = (prompt_frames[:, None] + torch.arange(steps * size, device=device)).clamp(max=width - 1)
        uniform = noise.gather(1, index[..., None].expand(-1, -1, noise.shape[2]))
        last = prompt_frames[:, None] + torch.arange(-sampling.window, 0, device=device)
        history = codes.gather(1, last.clamp(min=0)).masked_fill(last < 0, -1)
        new = codes.new_empty(batch, steps * size)
        for step in range(steps):
            logits = network.head(network.spread(run.hidden)).float()
            for place in range(size):
                i = step * size + place
                new[:, i] = sampling(logits[:, place], uniform[:, i], history)
                if sampling.window:
                    history = torch.cat((history[:, 1:], new[:, i, None]), dim=1)
            if step + 1 < steps:
                run.append(network.embed_groups(new[:, step * size : (step + 1) * size])[:, 0])
        source = frame - prompt_frames[:, None]
        codes = torch.where(source < 0, codes, new.gather(1, source.clamp(0, steps * size - 1)))
    return codes.masked_fill(frame >= lengths[:, None], 0)


@torch.no_grad()
def fill_levels(
    network: NonAutoregressiveNetwork,
    semantic: Tensor,
    first: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    prompt_frames: Tensor,
) -> Tensor:
    """Add the levels beyond the first, the most probable codes of a whole level at a time.

    Args:
        network: The network, in evaluation mode.
        semantic: Semantic tokens, int64 ``[B, T]``.
        first: Codes of the first level, int64 ``[B, T]``.
        prompt: Codes of the leading frames at every level, int64 ``[B, Q, P]``.
        lengths: Frames per row, prompt included, ``[B]``.
        prompt_frames: Leading frames given per row, ``[B]``.

    Returns:
        Codes, int64 ``[B, Q, T]``, 0 beyond a row's length.
    """
    width = semantic.shape[1]
    codes = first.new_zeros(len(first), network.num_quantizers, width)
    codes[:, :, : prompt.shape[2]] = prompt
    codes[:, 0] = first
    frame = torch.arange(width, device=semantic.device)
    target = (frame >= prompt_frames[:, None]) & (frame < lengths[:, None])
    for q in range(1, network.num_quantizers):
        level = torch.full_like(lengths, q)
        hidden = network.contextualize(semantic, codes, lengths, prompt_frames, level)
        codes[:, q][target] = network.head(hidden[target], q).argmax(dim=-1)
    return codes.masked_fill((frame >= lengths[:, None])[:, None], 0)
