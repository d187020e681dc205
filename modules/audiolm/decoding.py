"""Token-by-token generation with AudioLM's networks, as pure functions."""

import torch
from torch import Tensor

from modules.audiolm.chunks import cut, join, slides
from modules.audiolm.network import FlatTokenNetwork
from modules.layers import Caching, Continuation
from modules.sampling import TokenSampling


@torch.no_grad()
def continue_codes(
    network: FlatTokenNetwork,
    condition: Tensor,
    codes: Tensor,
    lengths: Tensor,
    given: Tensor,
    noise: Tensor,
    sampling: TokenSampling,
    cached: Caching = True,
) -> Tensor:
    """Generate the target tokens of chunks one by one, frame after frame and level after level.

    Args:
        network: The network, in evaluation mode.
        condition: Condition tokens, int64 ``[B, c, T]``.
        codes: Target tokens, of which the first ``given`` frames are read, int64 ``[B, L, T]``.
        lengths: Frames per row, ``[B]``.
        given: Frames that are there already per row, ``[B]``.
        noise: Uniform numbers, float64 ``[B, T, L]``.
        sampling: How a token is chosen.
        cached: Whether keys and values of earlier slots are kept; otherwise they are computed anew for each token.

    Returns:
        Codes, int64 ``[B, L, T]``, meaningless beyond a row's length.
    """
    levels, width = network.levels, codes.shape[2]
    steps = int((lengths - given).max()) * levels
    first = given * levels
    x, positions, valid = network.prefix(condition, codes[:, :, : int(given.max())], lengths, first)
    token = first[:, None] + torch.arange(steps, device=codes.device)
    uniform = noise.flatten(1).gather(1, token.clamp(max=width * levels - 1))
    # The slot after token i has position i + 1, counted from the begin vector at 0.
    run = Continuation(network.trunk, x, positions, valid, token[:, :-1] + 1, cached)
    history = codes.new_empty(len(codes), 0)
    new = codes.new_empty(len(codes), steps)
    for step in range(steps):
        level = step % levels
        new[:, step] = sampling(network.head(run.hidden, level).float(), uniform[:, step, None], history)
        if step + 1 < steps:
            run.append(network.embed_code(new[:, step], level))
    # Rows have different numbers of frames given: put the new ones where they belong.
    source = torch.arange(width, device=codes.device) - given[:, None]
    index = source.clamp(0, steps // levels - 1)[:, None].expand(-1, levels, -1)
    return torch.where(source[:, None] < 0, codes, new.unflatten(1, (-1, levels)).mT.gather(2, index))


def generate_coarse(
    network: FlatTokenNetwork,
    semantic: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    prompt_frames: Tensor,
    noise: Tensor,
    sampling: TokenSampling,
    chunk_frames: int = 500,
    overlap_frames: int = 150,
    cached: Caching = True,
) -> Tensor:
    """Generate coarse levels by slide-and-prompt: the last frames of a chunk prompt the next.

    Args:
        network: The coarse network, in evaluation mode.
        semantic: Semantic tokens, int64 ``[B, T]``.
        prompt: Coarse codes of the leading frames, int64 ``[B, L, P]``.
        lengths: Frames per row, prompt included, ``[B]``.
        prompt_frames: Leading frames given per row, ``[B]``.
        noise: Uniform numbers, float64 ``[B, T, L]``.
        sampling: How a token is chosen.
        chunk_frames: Longest chunk: 10 s in the paper.
        overlap_frames: Frames that prompt each chunk after the first: 3 s.
        cached: See :func:`continue_codes`.

    Returns:
        Codes, int64 ``[B, L, T]``, 0 beyond a row's length.
    """
    device, width = semantic.device, semantic.shape[1]
    codes = torch.zeros(len(semantic), network.levels, width, dtype=torch.int64, device=device)
    codes[:, :, : prompt.shape[2]] = prompt
    plans = [
        slides(length, given, chunk_frames, overlap_frames)
        for length, given in zip(lengths.tolist(), prompt_frames.tolist(), strict=True)
    ]
    for number in range(max(map(len, plans))):
        # All rows that have such a chunk, side by side.
        rows = [b for b, plan in enumerate(plans) if number < len(plan)]
        chosen = [plans[b][number] for b in rows]
        row = torch.tensor(rows, device=device)
        start, given, end = (torch.tensor(values, device=device) for values in zip(*chosen, strict=True))
        frames = max(slide.end - slide.start for slide in chosen)
        frame = (start[:, None] + torch.arange(frames, device=device)).clamp(max=width - 1)
        index = frame[:, None].expand(-1, network.levels, -1)
        new = continue_codes(
            network,
            semantic[row].gather(1, frame)[:, None],
            codes[row].gather(2, index),
            end - start,
            given,
            noise[row].gather(1, index.mT),
            sampling,
            cached,
        )
        for piece, b, slide in zip(new, rows, chosen, strict=True):
            codes[b, :, slide.start : slide.end] = piece[:, : slide.end - slide.start]
    return _blank(codes, lengths)


def generate_fine(
    network: FlatTokenNetwork,
    coarse: Tensor,
    prompt: Tensor,
    lengths: Tensor,
    prompt_frames: Tensor,
    noise: Tensor,
    sampling: TokenSampling,
    chunk_frames: int = 150,
    chunks_at_once: int = 64,
    cached: Caching = True,
) -> Tensor:
    """Generate fine levels in chunks side by side, all chunks of all rows in parallel.

    Args:
        network: The fine network, in evaluation mode.
        coarse: Coarse codes, int64 ``[B, c, T]``.
        prompt: Fine codes of the leading frames, int64 ``[B, L, P]``.
        lengths: Frames per row, prompt included, ``[B]``.
        prompt_frames: Leading frames given per row, ``[B]``.
        noise: Uniform numbers, float64 ``[B, T, L]``.
        sampling: How a token is chosen.
        chunk_frames: Frames per chunk: 3 s in the paper.
        chunks_at_once: Most chunks that are generated at the same time; bounds the memory of their keys and values.
        cached: See :func:`continue_codes`.

    Returns:
        Codes, int64 ``[B, L, T]``, 0 beyond a row's length.
    """
    codes = torch.zeros(len(coarse), network.levels, coarse.shape[2], dtype=torch.int64, device=coarse.device)
    codes[:, :, : prompt.shape[2]] = prompt
    chunks = cut([coarse, codes, noise.mT], lengths, chunk_frames)
    given = (prompt_frames[chunks.row] - chunks.start).clamp(min=0)
    # Chunks of like lengths together, and none that is all prompt.
    todo = (given < chunks.lengths).nonzero().flatten()
    todo = todo[(chunks.lengths - given)[todo].argsort(descending=True, stable=True)]
    for part in todo.split(chunks_at_once) if len(todo) else ():
        condition, known, numbers = (values[part] for values in chunks.tokens)
        new = continue_codes(network, condition, known, chunks.lengths[part], given[part], numbers.mT, sampling, cached)
        join(new, chunks.start[part], chunks.row[part], codes)
    return _blank(codes, lengths)


def _blank(codes: Tensor, lengths: Tensor) -> Tensor:
    """Put 0 beyond each row's length."""
    beyond = torch.arange(codes.shape[2], device=codes.device) >= lengths[:, None]
    return codes.masked_fill(beyond[:, None], 0)
