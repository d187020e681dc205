"""SoundStorm's iterative parallel decoding (Borsos et al. 2023, section 3.3) as a pure function.

How many tokens each pass fixes follows from the lengths alone, so the whole plan is made before the first pass, and no
pass waits for a value from the device. Each row draws from its own random stream, on the CPU whatever the device, and
its noise is laid out by frame: a row's codes do not depend on the batch it is decoded in.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from modules.sampling import filter_logits, sample_categorical
from modules.soundstorm.network import SoundStormNetwork
from modules.soundstorm.sampling import guide, gumbel, low_discrepancy_scores
from modules.soundstorm.schedule import DecodingSchedule, Pass
from modules.token_network import evaluating


class PassTrace(NamedTuple):
    """What one forward pass did, per row."""

    level: int
    iteration: int  # 1-based within the level, re-masking passes included
    num_masked: Tensor  # [B] int64, frames whose token of the level is masked on entry
    num_fixed: Tensor  # [B] int64, frames whose token is fixed by the pass
    greedy: Tensor  # [B] bool, fixed by argmax
    masked: Tensor  # [B, T] bool, frames masked on entry
    fixed: Tensor  # [B, T] bool, frames fixed
    confidence: Tensor  # [B, T] log-probability of the candidate token, noise not added; NaN where nothing was masked

    def select(self, rows: Sequence[int]) -> "PassTrace":
        """Return the trace of some rows."""
        index = torch.tensor(rows, device=self.masked.device)
        return self._replace(**{name: getattr(self, name)[index] for name in self._fields[2:]})


@overload
def decode(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor | None = ...,
    lengths: Tensor | None = ...,
    schedule: DecodingSchedule | None = ...,
    seed: int | Sequence[int] | Tensor = ...,
    return_trace: Literal[False] = ...,
    prompt_lengths: Tensor | None = ...,
    on_pass: Callable[[], None] | None = ...,
) -> Tensor: ...
@overload
def decode(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor | None = ...,
    lengths: Tensor | None = ...,
    schedule: DecodingSchedule | None = ...,
    seed: int | Sequence[int] | Tensor = ...,
    *,
    return_trace: Literal[True],
    prompt_lengths: Tensor | None = ...,
    on_pass: Callable[[], None] | None = ...,
) -> tuple[Tensor, list[PassTrace]]: ...
@torch.no_grad()
def decode(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor | None = None,
    lengths: Tensor | None = None,
    schedule: DecodingSchedule | None = None,
    seed: int | Sequence[int] | Tensor = 0,
    return_trace: bool = False,
    prompt_lengths: Tensor | None = None,
    on_pass: Callable[[], None] | None = None,
) -> Tensor | tuple[Tensor, list[PassTrace]]:
    """Generate acoustic tokens for semantic tokens, level by level from coarse to fine.

    Args:
        network: The network; it is run in evaluation mode, and left in the mode it was in.
        semantic: Semantic tokens of prompt and target on one time axis, int64 ``[B, T]``; or the probability of each of
            the V tokens, floats ``[B, T, V]`` (:meth:`SoundStormNetwork.embed_semantic`).
        prompt: Acoustic tokens of the leading frames at every level, int64 ``[B, Q, P]``; they come back unchanged. Of
            levels that the schedule leaves out they may be masks (``network.mask_id``), and so unknown.
        lengths: Real frames per row, prompt included, ``[B]``; T if None. A prompt ends where its row does.
        schedule: Passes and choices; the paper's if None.
        seed: Seed of every row's own stream, or one per row. Rows with the same seed draw the same noise: give each its
            own to get different readings of the same tokens.
        return_trace: Return also what each pass did.
        prompt_lengths: Prompt frames per row, ``[B]``, where rows differ; P if None.
        on_pass: Called after each pass, to show progress.

    Returns:
        Codes, int64 ``[B, Q, T]``, 0 beyond a row's length; with ``return_trace`` also the passes in order. Where the
        schedule leaves out the finest levels, there are as many fewer.

    Raises:
        ValueError: Shapes, token ids, lengths or the schedule do not fit one another or the network.
    """
    schedule = schedule or DecodingSchedule(iterations=(16,) + (1,) * (network.num_quantizers - 1))
    length, start, seeds = _check(network, semantic, prompt, lengths, schedule, seed, prompt_lengths)
    with evaluating(network):
        run = _Run(network, semantic, prompt, length, start, seeds, schedule, keep_confidence=return_trace)
        trace = []
        for level in range(schedule.num_levels):
            run.begin_level()
            for iteration in range(run.num_passes(level)):
                trace.append(run.step(level, iteration))
                if on_pass:
                    on_pass()
        return (run.result(), trace) if return_trace else run.result()


def _check(
    network: SoundStormNetwork,
    semantic: Tensor,
    prompt: Tensor | None,
    lengths: Tensor | None,
    schedule: DecodingSchedule,
    seed: int | Sequence[int] | Tensor,
    prompt_lengths: Tensor | None,
) -> tuple[list[int], list[int], list[int]]:
    """Return length, prompt length and seed of each row, or say what does not fit."""
    soft = semantic.is_floating_point()
    if semantic.ndim != 2 + soft or (soft and semantic.shape[2] != network.semantic_vocab_size):
        raise ValueError(
            f"semantic must be integers of shape [B, T] or floats of shape [B, T, {network.semantic_vocab_size}], got "
            f"{semantic.dtype} {tuple(semantic.shape)}"
        )
    batch, width = semantic.shape[:2]
    if not semantic.numel():
        raise ValueError(f"semantic must hold at least one row and one frame, got {batch} x {width}")
    if not soft:
        _check_ids("semantic", semantic, network.semantic_vocab_size)
    elif not ((semantic >= 0).all() and (semantic.float().sum(dim=-1) < 1.01).all()):  # bfloat16 has two digits
        raise ValueError("semantic must hold probabilities: no negative ones, and of sum 1, or less, in each frame")
    if len(schedule.iterations) != network.num_quantizers:
        raise ValueError(
            f"the schedule has iterations for {len(schedule.iterations)} levels, the network has "
            f"{network.num_quantizers}: give one number per level, 0 for the finest ones that are left out"
        )
    prompt_width = 0
    if prompt is not None:
        if prompt.ndim != 3 or prompt.shape[:2] != (batch, network.num_quantizers) or prompt.shape[2] > width:
            raise ValueError(
                f"prompt must have shape [B, Q, P] = [{batch}, {network.num_quantizers}, <= {width}], got "
                f"{list(prompt.shape)}; semantic tokens cover prompt and target"
            )
        _check_ids("prompt", prompt[:, : schedule.num_levels], network.codebook_size)
        _check_ids("prompt", prompt[:, schedule.num_levels :], network.mask_id + 1)
        prompt_width = prompt.shape[2]
    length = [width] * batch if lengths is None else _integers("lengths", lengths)
    start = [min(prompt_width, n) for n in length]
    if prompt_lengths is not None:
        start = _integers("prompt_lengths", prompt_lengths)
    seeds = [seed] * batch if isinstance(seed, int) else _integers("seed", seed)
    for name, values in (("lengths", length), ("prompt_lengths", start), ("seed", seeds)):
        if len(values) != batch:
            raise ValueError(f"{name} has {len(values)} entries for a batch of {batch}")
    for b, (n, p) in enumerate(zip(length, start, strict=True)):
        if not 0 < n <= width:
            raise ValueError(f"row {b}: length {n} does not lie in 1..{width}")
        if not 0 <= p <= min(n, prompt_width):
            raise ValueError(
                f"row {b}: a prompt of {p} frames does not fit into {n} frames, of which {prompt_width} given"
            )
    for s in seeds:
        if not -(2**63) <= s < 2**64:
            raise ValueError(f"seed {s} does not fit into 64 bits")
    return length, start, seeds


def _integers(name: str, values: Sequence[int] | Tensor) -> list[int]:
    listed = values.tolist() if isinstance(values, Tensor) else list(values)
    if any(not isinstance(value, int) for value in listed):
        raise ValueError(f"{name} must be whole numbers, one per row, got {values}")
    return listed


def _check_ids(name: str, ids: Tensor, size: int) -> None:
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise ValueError(f"{name} holds token ids {int(ids.min())}..{int(ids.max())}, the network knows 0..{size - 1}")


class _Run:
    """The state of one decoding.

    Tokens are chosen in units of ``span_length`` frames (single frames by default), counted from the first target frame
    of a row; U is the largest number of units of any row. Rows are padded to common counts, and what is padded never
    wins a place. Codes that were not fixed are masks, and ``frames`` always holds the embeddings of ``codes``.
    """

    def __init__(
        self,
        network: SoundStormNetwork,
        semantic: Tensor,
        prompt: Tensor | None,
        length: list[int],
        start: list[int],
        seeds: list[int],
        schedule: DecodingSchedule,
        keep_confidence: bool,
    ) -> None:
        self.network, self.schedule = network, schedule
        self.keep_confidence = keep_confidence or schedule.remask_passes > 0
        device, span = semantic.device, schedule.span_length
        self.batch, self.width = semantic.shape[:2]
        self.units = [-(-(n - p) // span) for n, p in zip(length, start, strict=True)]
        self.plans = [[schedule.plan(units, level) for units in self.units] for level in range(schedule.num_levels)]
        self.noise = self._draw_noise(seeds).to(device, non_blocking=True)

        frame = torch.arange(self.width, device=device)
        lengths, starts = torch.tensor(length, device=device), torch.tensor(start, device=device)
        self.real = frame < lengths[:, None]
        self.target = self.real & (frame >= starts[:, None])
        self.valid = None if min(length) == self.width else self.real
        # Frame of each unit's members, [B, U, span], and whether it exists.
        member = torch.arange(max(self.units) * span, device=device).view(-1, span)
        self.member_exists = member < (lengths - starts)[:, None, None]
        self.member_frame = (member + starts[:, None, None]).clamp(max=self.width - 1)

        self.codes = torch.full((self.batch, network.num_quantizers, self.width), network.mask_id, device=device)
        if prompt is not None:
            given = (frame < starts[:, None])[:, None, : prompt.shape[2]]
            self.codes[:, :, : prompt.shape[2]] = torch.where(given, prompt, network.mask_id)
        self.frames = network.embed(semantic, self.codes).float()
        if schedule.order == "low_discrepancy":
            self.fixed_order = torch.zeros(self.batch, max(self.units), dtype=torch.float64)
            for b, units in enumerate(self.units):
                self.fixed_order[b, :units] = low_discrepancy_scores(units)
            self.fixed_order = self.fixed_order.to(device)
        if schedule.guidance_scale and schedule.guidance_on != "prompt":
            nothing = network.semantic_embedding.weight[network.null_semantic_id]
            self.without_semantic = (nothing - network.embed_semantic(semantic)).float()

    def _draw_noise(self, seeds: list[int]) -> Tensor:
        """Draw per sampled pass one number per frame (its token) and one per unit (its place), ``[S, B, F + U]``."""
        # The first level with several iterations is the common case, but any level may sample.
        self.noise_index: dict[tuple[int, int], int] = {}
        for level, plans in enumerate(self.plans):
            for i in range(max(map(len, plans))):
                if any(i < len(plan) and not plan[i].greedy for plan in plans):
                    self.noise_index[level, i] = len(self.noise_index)
        most_units, span = max(self.units), self.schedule.span_length
        noise = torch.zeros(len(self.noise_index), self.batch, most_units * (span + 1), dtype=torch.float64)
        for b, (seed, units) in enumerate(zip(seeds, self.units, strict=True)):
            stream = torch.Generator().manual_seed(seed)
            for (level, i), s in self.noise_index.items():
                plan = self.plans[level][b]
                if i < len(plan) and not plan[i].greedy:
                    noise[s, b, : units * span] = torch.rand(units * span, generator=stream, dtype=torch.float64)
                    places = torch.rand(units, generator=stream, dtype=torch.float64)
                    noise[s, b, most_units * span : most_units * span + units] = places
        return noise

    def num_passes(self, level: int) -> int:
        return max(map(len, self.plans[level]))

    def begin_level(self) -> None:
        """Mark every unit as masked, and none as refreshed."""
        self.masked = self.member_exists.any(dim=-1)
        self.unit_confidence = torch.full(self.masked.shape, torch.inf, device=self.masked.device)

    def step(self, level: int, iteration: int) -> PassTrace:
        """Run pass number ``iteration`` (0-based) of a level in every row that has one."""
        device = self.codes.device
        passes = [plan[iteration] if iteration < len(plan) else Pass(0, 0, True) for plan in self.plans[level]]
        num_masked = torch.tensor([p.num_masked for p in passes], device=device)
        num_fixed = torch.tensor([p.num_fixed for p in passes], device=device)
        greedy = torch.tensor([p.greedy for p in passes], device=device)
        remasked = torch.tensor([p.num_masked if p.remask else 0 for p in passes], device=device)
        if any(p.remask for p in passes):
            self._mask_again(level, remasked)
        frames_masked = self._frames_of(self.masked)

        # The masked units of each row first; rows that have fewer than the others are padded with units not in play.
        most = max(p.num_masked for p in passes)
        unit = self.masked.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        in_play = torch.arange(most, device=device) < num_masked[:, None]
        members = unit[..., None].expand(-1, -1, self.schedule.span_length)
        frame = self.member_frame.gather(1, members)
        exists = self.member_exists.gather(1, members) & in_play[..., None]

        logits = self._logits(level, frame.flatten(1))
        token = logits.argmax(dim=-1)
        if not all(p.greedy for p in passes):
            noise = self.noise[self.noise_index[level, iteration]]
            span = self.schedule.span_length
            per_frame, per_unit = noise.split(
                (noise.shape[1] // (span + 1) * span, noise.shape[1] // (span + 1)), dim=1
            )
            uniform = per_frame.view(self.batch, -1, span).gather(1, members).flatten(1)
            allowed = filter_logits(logits / self.schedule.temperature, self.schedule.top_k, self.schedule.top_p)
            token = torch.where(greedy[:, None], token, sample_categorical(allowed, uniform))
            per_unit = per_unit.gather(1, unit)
        else:
            per_unit = None
        confidence = None
        if per_unit is not None or self.keep_confidence:
            chosen_logit = logits.gather(-1, token[..., None]).squeeze(-1)
            confidence = (chosen_logit - logits.logsumexp(dim=-1)).view(exists.shape)

        take = in_play
        if per_unit is not None and confidence is not None:
            annealing = 1 - (iteration + 1) / self.schedule.iterations[level]
            score = self._score(confidence, exists, unit, per_unit, annealing).masked_fill(~in_play, -torch.inf)
            best = score.argsort(dim=1, descending=True, stable=True)
            wins = torch.arange(most, device=device) < num_fixed[:, None]
            take = torch.zeros_like(in_play).scatter(1, best, wins)
        fixed = self._fix(level, frame, exists & take[..., None], token.view(exists.shape))
        self.masked = self.masked.scatter(1, unit, self.masked.gather(1, unit) & ~take)
        if confidence is not None:
            worst = confidence.masked_fill(~exists, torch.inf).amin(dim=-1)
            # A token that was masked again is settled: its confidence no longer counts.
            worst = worst.masked_fill((remasked > 0)[:, None], torch.inf)
            kept = self.unit_confidence.gather(1, unit)
            self.unit_confidence = self.unit_confidence.scatter(1, unit, torch.where(take, worst, kept))
        return PassTrace(
            level, iteration + 1, frames_masked.sum(1), fixed.sum(1), greedy, frames_masked, fixed,
            self._spread(frame, exists, confidence),
        )  # fmt: skip

    def _logits(self, level: int, frame: Tensor) -> Tensor:
        """Run the network and return logits at the frames asked for, ``[B, m] -> [B, m, C]``, guided if so set."""
        frames, valid = self.frames, self.valid
        schedule, guided = self.schedule, self.schedule.guidance_scale > 0
        if guided:
            frames = torch.cat((frames, frames if schedule.guidance_on == "prompt" else frames + self.without_semantic))
        if guided and schedule.guidance_on == "semantic":
            valid = None if valid is None else valid.repeat(2, 1)
        elif guided:
            # Without its prompt a row is its target alone. A row that is all prompt has nothing to predict; it keeps
            # its frames, because attention over no frame at all is not a number.
            nothing = ~self.target.any(dim=1, keepdim=True)
            valid = torch.cat((self.real, torch.where(nothing, self.real, self.target)))
        hidden = self.network.contextualize(frames.to(self.network.head_weight.dtype), valid)
        index = frame.repeat(2, 1) if guided else frame
        hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        logits = self.network.head(hidden, level).float()
        if guided:
            logits = guide(*logits.chunk(2), scale=schedule.guidance_scale, rescale=schedule.guidance_rescale)
        return logits

    def _score(self, confidence: Tensor, exists: Tensor, unit: Tensor, uniform: Tensor, annealing: float) -> Tensor:
        """Score the units in play, ``[B, m]``: the best are fixed first."""
        if self.schedule.order == "random":
            return uniform
        if self.schedule.order == "low_discrepancy":
            return self.fixed_order.gather(1, unit)
        # A span is as sure as its surest token (MAGNeT).
        score = confidence.masked_fill(~exists, -torch.inf).amax(dim=-1).double()
        if self.schedule.choice_temperature:
            score = score + self.schedule.choice_temperature * annealing * gumbel(uniform)
        return score

    def _fix(self, level: int, frame: Tensor, take: Tensor, token: Tensor) -> Tensor:
        """Write tokens into codes and frame embeddings; return which frames were written, bool ``[B, T]``."""
        fixed = self._spread(frame, take, torch.ones_like(token, dtype=torch.bool))
        new = torch.where(fixed, self._spread(frame, take, token), self.codes[:, level])
        self._replace(level, new)
        return fixed

    def _mask_again(self, level: int, counts: Tensor) -> None:
        """Mask each row's least confident units once more, as many as ``counts`` ``[B]`` says."""
        worst = self.unit_confidence.argsort(dim=1, stable=True)
        chosen = torch.arange(worst.shape[1], device=worst.device) < counts[:, None]
        again = torch.zeros_like(self.masked).scatter(1, worst, chosen)
        self.masked = self.masked | again
        self._replace(level, self.codes[:, level].masked_fill(self._frames_of(again), self.network.mask_id))

    def _replace(self, level: int, new: Tensor) -> None:
        """Put new codes ``[B, T]`` into a level, and bring the frame embeddings up to date."""
        old = self.codes[:, level]
        change = self.network.embed_codes(new, level).float() - self.network.embed_codes(old, level).float()
        self.frames = self.frames + change
        self.codes[:, level] = new

    def _frames_of(self, units: Tensor) -> Tensor:
        """Turn a mask over units ``[B, U]`` into one over frames ``[B, T]``."""
        members = self.member_exists & units[..., None]
        return self._spread(self.member_frame, members, torch.ones_like(members))

    def _spread(self, frame: Tensor, where: Tensor, values: Tensor | None) -> Tensor:
        """Lay values at units' members ``[B, m, span]`` out over frames ``[B, T]``; 0, False or NaN elsewhere."""
        if values is None:
            return torch.full((self.batch, self.width), torch.nan, device=frame.device)
        empty = torch.nan if values.is_floating_point() else 0
        # What is left out goes to one frame too many, which is cut off.
        out = torch.full((self.batch, self.width + 1), empty, dtype=values.dtype, device=values.device)
        index = torch.where(where, frame, self.width).flatten(1)
        return out.scatter(1, index, values.reshape(self.batch, -1))[:, : self.width]

    def result(self) -> Tensor:
        return self.codes[:, : self.schedule.num_levels].masked_fill(~self.real[:, None], 0)
