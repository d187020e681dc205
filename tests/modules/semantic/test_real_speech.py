"""Semantic tokens of real speech: one text by many voices, against another text."""

import csv
import os
from itertools import combinations, groupby
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModel

from modules.semantic import LogMelFeatures, SemanticTokenizer, TransformersFeatures
from modules.semantic.statistics import StreamingKMeans

CORPUS = Path(__file__).parents[3] / "datamodules" / "demo_speech"


@pytest.fixture(scope="module")
def readings():
    """The texts of the small corpus that several voices read, four readings of each: ``[[audio [N]]]``."""
    texts = {}
    with (CORPUS / "manifest.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["text"], []).append(CORPUS / row["path"])
    shared = [paths[:4] for paths in texts.values() if len(paths) >= 4]
    return [[torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths] for paths in shared]


def fitted(features, clips, num_clusters):
    """A tokenizer fitted on a few clips."""
    frames = torch.cat([features(clip[None])[0] for clip in clips])
    mean, std = frames.mean(dim=0), frames.std(dim=0)
    kmeans = StreamingKMeans(num_clusters, batch_frames=len(frames))
    for _ in range(5):
        kmeans.update((frames - mean) / std)
    tokenizer = SemanticTokenizer(features, num_clusters)
    tokenizer.set_codebook(mean, std, kmeans.centroids)
    return tokenizer


def edit_distance(one, other):
    """Edits per token of the longer of two sequences, after repeats are taken out."""
    one, other = ([token for token, _ in groupby(tokens.tolist())] for tokens in (one, other))
    row = list(range(len(other) + 1))
    for left, token in enumerate(one, 1):
        diagonal, row[0] = row[0], left
        for right, candidate in enumerate(other, 1):
            diagonal, row[right] = row[right], min(row[right] + 1, row[right - 1] + 1, diagonal + (token != candidate))
    return row[-1] / max(len(one), len(other))


def distances(tokenizer, readings):
    """Mean edit distance between readings of one text, and between readings of different texts."""
    tokens = [[tokenizer.encode(clip[None])[0] for clip in clips] for clips in readings]
    same = [edit_distance(*pair) for clips in tokens for pair in combinations(clips, 2)]
    different = [edit_distance(one, other) for one in tokens[0] for other in tokens[1]]
    return sum(same) / len(same), sum(different) / len(different)


def test_log_mel_tokens_follow_the_text_across_voices(readings):
    clips = [clip for clips in readings for clip in clips]
    same, different = distances(fitted(LogMelFeatures(), clips, 64), readings)
    assert same < different - 0.2


@pytest.mark.assets
def test_whisper_tokens_follow_the_text_across_voices(readings):
    folder = os.environ.get("SOUNDSTORM_WHISPER")
    if not folder:
        pytest.skip("SOUNDSTORM_WHISPER does not name a folder with a Whisper base")
    features = TransformersFeatures(folder, layer=4)
    clips = [clip for clips in readings for clip in clips]
    same, different = distances(fitted(features, clips, 64), readings)
    assert same < 0.4
    assert different > 0.7

    # What not padding to 30 s costs.
    extractor, model = (
        AutoFeatureExtractor.from_pretrained(folder),
        AutoModel.from_pretrained(folder, dtype=torch.float32),
    )
    inputs = extractor(clips[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        padded = model.encoder(**inputs, output_hidden_states=True).hidden_states[4]
    unpadded = features(clips[0][None])
    assert torch.cosine_similarity(unpadded, padded[:, : unpadded.shape[1]], dim=2).mean() > 0.94
