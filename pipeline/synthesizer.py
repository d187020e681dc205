"""The whole trained system as one object: speech in, speech in any voice out."""

from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn

from datamodules.audio_files import AudioReader, UnusableAudio
from modules.codec.soundstream import SoundStream
from modules.model_folder import CONFIG_FILE, WEIGHTS_FILE, find_folder, missing_files, read_config, write_config
from modules.semantic import Posterior, SemanticTokenizer
from modules.soundstorm import Chunking, DecodingSchedule, ReadingChoice, decode_in_chunks
from modules.soundstorm.chunks import Chunk, chunk_sizes
from modules.soundstorm.pretrained import TrainedNetwork, load_network, save_network
from modules.tokenization.alignment import align_tokens

PARTS = ("codec", "semantic", "soundstorm")
# Longer recordings are tokenized in parts of about this length: what the features see need not grow.
SEGMENT_SECONDS = 30.0


class Synthesis(NamedTuple):
    """Synthetic speech."""

    audio: Tensor  # [N], float32 in [-1, 1]
    sample_rate: int  # Hz


class SpeechSynthesizer(nn.Module):
    """Says what a recording says, in the voice of another one or in a voice drawn at random.

    Speech becomes semantic tokens, SoundStorm makes acoustic tokens of them after those of the voice, the codec makes
    audio of these. What is longer than a chunk is generated in several, each prompted by the end of the chunk before
    (AudioLM's slide-and-prompt, which SoundStorm's paper uses for its baseline).

    Args:
        codec: Audio to acoustic tokens and back.
        semantic: Audio to semantic tokens, at the codec's frame rate or a part of it.
        trained: The network and the identities of the codec and the tokenizer it was trained with.
        schedule: How to decode; the paper's schedule if None.
        chunk_seconds: Longest stretch generated at once, prompt included.
        prompt_seconds: Longest prompt, of a voice or of the chunk before.
        readings: How many readings of each chunk to draw; the one is kept in which the words are heard best.
        soft_semantic: Speak from what each semantic token may be, as far as the tokenizer is sure of it; from the most
            probable ones, as in the paper, if None.

    Raises:
        ValueError: The network was trained on tokens of another codec or tokenizer, or the lengths make no sense, or
            there are not so many tokens as ``soft_semantic`` asks for.
    """

    def __init__(
        self,
        codec: SoundStream,
        semantic: SemanticTokenizer,
        trained: TrainedNetwork,
        schedule: DecodingSchedule | None = None,
        chunk_seconds: float = 30.0,
        prompt_seconds: float = 3.0,
        readings: int = 1,
        soft_semantic: Posterior | None = None,
    ) -> None:
        super().__init__()
        self.choice = ReadingChoice(codec, semantic, readings)
        self.choice.check(trained.tokens)
        self.codec, self.semantic, self.network, self.tokens = codec.eval(), semantic.eval(), *trained
        self.schedule = schedule or DecodingSchedule(iterations=(16,) + (1,) * (self.network.num_quantizers - 1))
        self.chunk_seconds, self.prompt_seconds = chunk_seconds, prompt_seconds
        self.soft_semantic = soft_semantic
        if soft_semantic is not None:
            soft_semantic.check(semantic.vocab_size)
        try:
            rate = codec.frame_rate
            self.chunking = Chunking(round(chunk_seconds * rate), round(prompt_seconds * rate))
        except ValueError as error:
            raise ValueError(f"chunk_seconds={chunk_seconds} with prompt_seconds={prompt_seconds}: {error}") from None

    @property
    def sample_rate(self) -> int:
        """Of the audio that is made, in Hz."""
        return self.codec.sample_rate

    def forward(
        self,
        source: str | PathLike[str],
        voice: str | PathLike[str] | None = None,
        seed: int = 0,
        on_chunk: Callable[[Chunk], None] | None = None,
        on_pass: Callable[[int], None] | None = None,
    ) -> Synthesis:
        """Say what a recording says.

        Args:
            source: Audio file with the words, of any rate, length and number of channels.
            voice: Audio file whose first seconds give the voice, at least one second; None draws a voice.
            seed: Of all that is drawn.
            on_chunk: Called after each chunk, to show how the tokens came about.
            on_pass: Called after each pass with the number of all, to show progress.

        Returns:
            The speech.

        Raises:
            ValueError: A file cannot be used; it is named, with the reason.
        """
        semantic = self._semantic(self._read(source))
        if voice is None:
            prompt_semantic, prompt = semantic[:0], torch.zeros(self.network.num_quantizers, 0, dtype=torch.long)
        else:
            prompt_semantic, prompt = self._prompt(voice)
        codes = self.generate(semantic, prompt_semantic, prompt, seed, on_chunk, on_pass)
        # In parts as well: a minute of speech fits anywhere.
        width = round(SEGMENT_SECONDS * self.codec.frame_rate)
        audio = torch.cat([self.codec.decode(part[None].to(self._device))[0] for part in codes.split(width, dim=1)])
        return Synthesis(audio.clamp(-1, 1).cpu(), self.sample_rate)

    @torch.no_grad()
    def generate(
        self,
        semantic: Tensor,
        prompt_semantic: Tensor,
        prompt: Tensor,
        seed: int = 0,
        on_chunk: Callable[[Chunk], None] | None = None,
        on_pass: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Generate codes for semantic tokens of any length.

        Args:
            semantic: What to say, at the codec's frame rate: int64 ``[T]``, or the probability of each token, floats
                ``[T, V]``.
            prompt_semantic: What the voice says, ``[P]`` or ``[P, V]`` likewise.
            prompt: How, codes ``[Q, P]``.
            seed: Of all that is drawn.
            on_chunk: Called after each chunk, to show how the tokens came about.
            on_pass: Called after each pass with the number of all, to show progress.

        Returns:
            Codes ``[Q, T]`` of the levels that the schedule decodes, without those of the voice.
        """
        given, sentence = len(prompt_semantic), torch.cat([prompt_semantic, semantic])
        codes = decode_in_chunks(
            self.network,
            sentence[None].to(self._device),
            prompt[None].to(self._device),
            torch.tensor([len(sentence)]),
            self.schedule,
            torch.tensor([seed]),
            torch.tensor([given]),
            self.chunking,
            self.choice,
            on_chunk,
            on_pass,
        )
        return codes[0, :, given:].cpu()

    def _prompt(self, voice: str | PathLike[str]) -> tuple[Tensor, Tensor]:
        audio = self._read(voice)[: round(self.prompt_seconds * self.sample_rate)]
        if len(audio) < self.sample_rate:
            raise ValueError(
                f"{voice} lasts {len(audio) / self.sample_rate:.2f} s; a voice takes at least 1 s, and the first "
                f"{self.prompt_seconds:g} s of it are used"
            )
        return self._semantic(audio), self.codec.encode(audio[None].to(self._device))[0].cpu()

    def _semantic(self, audio: Tensor) -> Tensor:
        """Semantic tokens ``[T]`` of audio ``[N]`` at the codec's frame rate, or their probabilities ``[T, V]``."""
        hop = self.codec.hop_length
        width = round(SEGMENT_SECONDS * self.codec.frame_rate)
        sizes = chunk_sizes(-(-len(audio) // hop), width, width)
        tokens, start = [], 0
        for size in sizes:
            part = audio[None, start * hop : (start + size) * hop].to(self._device)
            if self.soft_semantic is None:
                found = self.semantic.encode(part)[0]
            else:
                found = self.semantic.encode_soft(part, self.soft_semantic).spread(self.semantic.vocab_size)[0]
            tokens.append(align_tokens(found.cpu(), size, self.semantic.frame_rate, self.codec.frame_rate, dim=0))
            start += size
        return torch.cat(tokens)

    @property
    def _device(self) -> torch.device:
        return self.network.head_bias.device

    def _read(self, file: str | PathLike[str]) -> Tensor:
        try:
            return AudioReader(self.sample_rate, max_seconds=float("inf"))(Path(file))
        except UnusableAudio as error:
            raise ValueError(f"{file}: {error}; give a recording of speech, such as a WAV, FLAC or MP3 file") from None

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str]) -> "SpeechSynthesizer":
        """Load a published system.

        Args:
            source: A folder as :meth:`save_pretrained` writes it, such as ``checkpoints/small-16k``, or the hub id of a
                repository with such files.

        Returns:
            The system, on the CPU.

        Raises:
            FileNotFoundError: There is no such folder or repository, or it is incomplete.
            ValueError: A file is damaged, or the parts do not belong together.
        """
        patterns = [CONFIG_FILE, *(f"{part}/{name}" for part in PARTS for name in (CONFIG_FILE, WEIGHTS_FILE))]
        folder = find_folder(source, patterns)
        if missing := missing_files(folder, [CONFIG_FILE, *PARTS]):
            raise FileNotFoundError(f"{source} is no complete system: {', '.join(missing)} missing")
        config = read_config(folder, cls.__name__)
        try:
            arguments = {name: float(config[name]) for name in ("chunk_seconds", "prompt_seconds")}
            # What was published earlier does not say.
            readings, soft = int(config.get("readings", 1)), config.get("soft_semantic")
            soft_semantic = Posterior(**soft) if soft else None
            schedule = DecodingSchedule(**config["schedule"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / CONFIG_FILE} does not describe a {cls.__name__} ({error!r})") from None
        trained = load_network(folder / "soundstorm")
        if len(schedule.iterations) != trained.network.num_quantizers:
            raise ValueError(
                f"{folder / CONFIG_FILE}: schedule.iterations has {len(schedule.iterations)} numbers, the network "
                f"{trained.network.num_quantizers} levels: give one for each, 0 for the finest that are left out"
            )
        return cls(
            SoundStream.from_pretrained(folder / "codec"),
            SemanticTokenizer.from_pretrained(str(folder / "semantic")),
            trained,
            schedule,
            readings=readings,
            soft_semantic=soft_semantic,
            **arguments,
        )

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the system: ``config.yaml`` and a folder for each part.

        Args:
            folder: Where to; made if missing.
        """
        root = Path(folder)
        # Rounded weights would be another codec, with other codes.
        exact = all(torch.equal(value, value.half().to(value.dtype)) for value in self.codec.state_dict().values())
        self.codec.save_pretrained(root / "codec", torch.float16 if exact else torch.float32)
        self.semantic.save_pretrained(root / "semantic")
        save_network(TrainedNetwork(self.network, self.tokens), root / "soundstorm")
        config: dict[str, Any] = {
            "chunk_seconds": self.chunk_seconds,
            "prompt_seconds": self.prompt_seconds,
            "readings": self.choice.readings,
            "soft_semantic": asdict(self.soft_semantic) if self.soft_semantic else None,
            "schedule": {**vars(self.schedule), "iterations": list(self.schedule.iterations)},
        }
        write_config(root, config)

    def push_to_hub(self, repo_id: str, folder: str | PathLike[str], private: bool = False) -> str:
        """Publish the system on the Hugging Face hub.

        Args:
            repo_id: Repository, ``user/name``; made if missing.
            folder: Where to write the files first; cards that lie there already go along.
            private: Whether a new repository is private.

        Returns:
            Address of the commit.
        """
        self.save_pretrained(folder)
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo_id, folder_path=str(folder), run_as_future=False).commit_url
