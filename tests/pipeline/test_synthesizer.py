import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from modules.codec.soundstream import ResidualVectorQuantizer, SoundStream, SpectralDecoder, SpectralEncoder
from modules.semantic import DistilledFeatures, LogMelFeatures, Posterior, SemanticTokenizer
from modules.soundstorm import Chunking, DecodingSchedule, ReadingChoice, SoundStormNetwork, decode, decode_in_chunks
from modules.soundstorm.pretrained import TrainedNetwork, load_network, pretrained_network, save_network
from modules.soundstorm.readings import reading_seeds
from pipeline.cli import main
from pipeline.synthesizer import SpeechSynthesizer


def make_codec():
    torch.manual_seed(0)
    encoder = SpectralEncoder(latent_dim=4, dim=8, num_blocks=1, hop_length=320, n_fft=640, stft_hop=160)
    decoder = SpectralDecoder(latent_dim=4, dim=8, num_blocks=1, hop_length=320, n_fft=640, stft_hop=160)
    return SoundStream(encoder, decoder, ResidualVectorQuantizer(dim=4, num_quantizers=2, codebook_size=16))


def make_semantic(features=None):
    torch.manual_seed(1)
    tokenizer = SemanticTokenizer(features or LogMelFeatures(num_mels=6, context=0), num_clusters=10)
    tokenizer.set_codebook(torch.zeros(6), torch.ones(6), torch.randn(10, 6))
    return tokenizer


def make_network(codec, semantic):
    torch.manual_seed(2)
    network = SoundStormNetwork(16, 1, 2, 32, 5, 2, 16, 10)
    network.initialize_from_codebooks(codec.code_vectors(), semantic.centroids)
    identities = {"codec": codec.identity(), "semantic": semantic.identity()}
    return TrainedNetwork(network, json.loads(json.dumps(identities)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    codec, semantic = make_codec(), make_semantic()
    folder = tmp_path_factory.mktemp("system")
    schedule = DecodingSchedule(iterations=(4, 1), temperature=0.9)
    SpeechSynthesizer(codec, semantic, make_network(codec, semantic), schedule, 4.0, 1.5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def synthesizer(folder):
    return SpeechSynthesizer.from_pretrained(folder)


def write(path, seconds, rate=16000, channels=1, level=0.3):
    steps = np.arange(round(seconds * rate)) / rate
    samples = level * np.sin(2 * np.pi * (200 + 300 * np.sin(7 * steps)) * steps)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return path


@pytest.mark.parametrize(("seconds", "rate", "channels"), [(0.5, 16000, 1), (3.0, 44100, 2), (9.3, 8000, 8)])
def test_any_recording_becomes_speech_of_its_length(synthesizer, tmp_path, seconds, rate, channels):
    result = synthesizer(write(tmp_path / "a.wav", seconds, rate, channels))
    assert result.sample_rate == 16000
    assert result.audio.shape == (-(-round(seconds * 16000) // 320) * 320,)
    assert result.audio.isfinite().all()


def test_the_voice_is_heard_and_not_said(synthesizer, tmp_path):
    source = write(tmp_path / "a.wav", 2.0)
    voices = [write(tmp_path / f"{level}.wav", 2.0, level=level) for level in (0.05, 0.9)]
    made = [synthesizer(source, voice).audio for voice in voices]
    assert made[0].shape == made[1].shape == (32000,)
    assert not torch.equal(*made)


def test_a_seed_gives_the_same_speech_again_and_another_seed_another(synthesizer, tmp_path):
    source = write(tmp_path / "a.wav", 2.0)
    first, second, third = (synthesizer(source, seed=seed).audio for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_each_chunk_goes_on_from_the_end_of_the_one_before(synthesizer, monkeypatch):
    import modules.soundstorm.chunks as module

    seen, seeds = [], []
    plain = module.decode_best

    def decode_best(network, semantic, prompt, *others, **settings):
        codes, passes = plain(network, semantic, prompt, *others, **settings)
        seen.append((semantic[0], prompt[0], codes[0]))
        seeds.append(int(others[2]))
        return codes, passes

    monkeypatch.setattr(module, "decode_best", decode_best)
    semantic = torch.randint(10, (500,))
    done = []
    codes = synthesizer.generate(
        semantic, semantic[:60], torch.randint(16, (2, 60)), 7, on_chunk=lambda chunk: done.append(chunk[:2])
    )
    assert codes.shape == (2, 500)
    assert seeds == [7 + i for i in range(len(seen))]
    assert done == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) > 2
    assert all(len(sentence) <= 200 for sentence, _, _ in seen)
    for (sentence, _, before), (next_sentence, prompt, _) in pairwise(seen):
        assert prompt.shape[1] == 75
        assert torch.equal(prompt, before[:, -75:])
        assert torch.equal(next_sentence[:75], sentence[-75:])


@pytest.mark.parametrize(("frames", "iterations"), [(500, (4, 1)), (2, (4, 3))])
def test_every_pass_is_counted_and_all_are_known_at_the_first(synthesizer, monkeypatch, frames, iterations):
    monkeypatch.setattr(synthesizer, "schedule", DecodingSchedule(iterations=iterations))
    semantic, totals = torch.randint(10, (frames,)), []
    synthesizer.generate(semantic, semantic[:0], torch.zeros(2, 0, dtype=torch.long), on_pass=totals.append)
    assert totals == [len(totals)] * len(totals)
    assert len(totals) > 2


def test_a_batch_is_decoded_in_chunks_as_each_of_its_utterances_is(synthesizer):
    """What a table measures is what the synthesizer says."""
    lengths, given, seeds = torch.tensor([500, 160, 231, 90, 40]), torch.tensor([60, 0, 75, 0, 40]), torch.arange(5) * 9
    semantic, prompt = torch.randint(10, (5, 500)), torch.randint(16, (5, 2, 75))
    codes = decode_in_chunks(
        synthesizer.network, semantic, prompt, lengths, synthesizer.schedule, seeds, given, Chunking(200, 75)
    )
    assert codes.shape == (5, 2, 500)
    for row, (length, start) in enumerate(zip(lengths.tolist(), given.tolist(), strict=True)):
        assert torch.equal(codes[row, :, :start], prompt[row, :, :start])
        assert not codes[row, :, length:].any()
        if length > start:
            said, before = semantic[row, :length].split([length - start, start][::-1])[::-1]
            expected = synthesizer.generate(said, before, prompt[row, :, :start], int(seeds[row]))
            assert torch.equal(codes[row, :, start:length], expected), row


def test_the_best_reading_of_a_chunk_is_what_the_next_goes_on_from_and_what_is_shown(synthesizer, folder):
    """A network that has learnt nothing says nothing well: which reading is best is drawn, but it is the same."""
    several = SpeechSynthesizer.from_pretrained(folder)
    several.choice = ReadingChoice(several.codec, several.semantic, 3)
    semantic, empty, chunks = torch.randint(10, (500,)), torch.zeros(0, dtype=torch.long), []
    codes = several.generate(semantic, empty, torch.zeros(2, 0, dtype=torch.long), 5, on_chunk=chunks.append)
    start = 0
    for number, chunk in enumerate(chunks):
        assert chunk.codes.shape[0] == len(chunk.passes[0].fixed) == 1
        known = min(start, 75)
        said = semantic[None, start - known : start - known + chunk.codes.shape[2]]
        given = codes[None, :, start - known : start]
        seeds = reading_seeds([5 + number], 3)
        readings = torch.cat([decode(several.network, said, given, None, several.schedule, seed) for seed in seeds])
        best = several.choice.misreadings(readings, said[0], known).argmin()
        assert torch.equal(chunk.codes[0], readings[best])
        start += chunk.codes.shape[2] - known
    assert start == 500
    plain = synthesizer.generate(semantic, empty, torch.zeros(2, 0, dtype=torch.long), 5)
    assert not torch.equal(codes, plain)


def test_the_number_of_readings_is_part_of_a_published_system(folder, tmp_path):
    system = SpeechSynthesizer.from_pretrained(folder)
    assert system.choice.readings == 1
    system.choice = ReadingChoice(system.codec, system.semantic, 3)
    system.save_pretrained(tmp_path)
    assert SpeechSynthesizer.from_pretrained(tmp_path).choice.readings == 3
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("readings: 3\n", ""))
    assert SpeechSynthesizer.from_pretrained(tmp_path).choice.readings == 1, "published before there was a choice"
    (tmp_path / "config.yaml").write_text(config.replace("readings: 3", "readings: none"))
    with pytest.raises(ValueError, match=r"config\.yaml does not describe"):
        SpeechSynthesizer.from_pretrained(tmp_path)


def test_a_long_recording_is_read_in_parts(synthesizer, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.synthesizer.SEGMENT_SECONDS", 2.0)
    source = write(tmp_path / "a.wav", 5.0)
    assert synthesizer(source).audio.shape == (5 * 16000,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "is missing"),
        (lambda path: path.touch() or path, "is empty"),
        (lambda path: write(path, 1.0, level=0.0), "is silent"),
        (lambda path: write(path, 0.01), "shorter than"),
    ],
)
def test_what_cannot_be_used_is_named(synthesizer, tmp_path, make, message):
    path = make(tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=f"bad.wav: .*{message}.*give a recording of speech"):
        synthesizer(path)


def test_a_voice_too_short_is_refused(synthesizer, tmp_path):
    source, voice = write(tmp_path / "a.wav", 1.0), write(tmp_path / "voice.wav", 0.7)
    with pytest.raises(ValueError, match=r"voice\.wav lasts 0\.70 s; a voice takes at least 1 s"):
        synthesizer(source, voice)


def test_parts_that_do_not_belong_together_are_refused():
    codec, semantic = make_codec(), make_semantic()
    trained = make_network(codec, semantic)
    with torch.no_grad():
        codec.quantizer.codebooks += 1
    with pytest.raises(ValueError, match="tokens of the codec"):
        SpeechSynthesizer(codec, semantic, trained)


def test_a_prompt_that_leaves_a_chunk_no_room_is_refused_by_its_seconds():
    codec, semantic = make_codec(), make_semantic()
    with pytest.raises(ValueError, match=r"chunk_seconds=4\.0 with prompt_seconds=2\.0: overlap_frames=100"):
        SpeechSynthesizer(codec, semantic, make_network(codec, semantic), None, 4.0, 2.0)


def test_a_distilled_tokenizer_stands_in_for_its_teacher_and_no_other_does():
    codec, teacher = make_codec(), make_semantic()
    identity = json.loads(json.dumps(teacher.identity()))
    sizes = {"model_dim": 8, "num_layers": 1, "num_heads": 1, "ffn_dim": 8}
    student = make_semantic(DistilledFeatures(6, **sizes, teacher=identity))
    SpeechSynthesizer(codec, student, make_network(codec, teacher))
    with pytest.raises(ValueError, match="tokens of the semantic"):
        SpeechSynthesizer(codec, make_semantic(DistilledFeatures(6, **sizes)), make_network(codec, teacher))


def test_a_network_comes_back_from_its_folder(tmp_path):
    trained = make_network(make_codec(), make_semantic())
    save_network(trained, tmp_path, torch.float32)
    loaded = load_network(tmp_path)
    assert loaded.tokens == trained.tokens
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])


def test_a_network_is_trained_on_with_another_dropout(tmp_path):
    save_network(make_network(make_codec(), make_semantic()), tmp_path, torch.float32)
    frames = torch.randn(1, 6, 16)
    noisy = {}
    for rate in (None, 0.0, 0.5):
        network = pretrained_network(str(tmp_path), rate)
        noisy[network.dropout] = not torch.equal(network.contextualize(frames), network.contextualize(frames))
    assert noisy == {0.1: True, 0.0: False, 0.5: True}


@pytest.mark.parametrize("damage", ["soundstorm/model.safetensors", "soundstorm/config.yaml", "config.yaml"])
def test_damaged_files_are_named(folder, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / damage).write_bytes((copy / damage).read_bytes()[:20])
    with pytest.raises(ValueError, match=damage):
        SpeechSynthesizer.from_pretrained(copy)
    (copy / damage).unlink()
    with pytest.raises(FileNotFoundError, match=damage.split("/")[-1]):
        SpeechSynthesizer.from_pretrained(copy)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        SpeechSynthesizer.from_pretrained(tmp_path / "nowhere" / "to" / "be" / "found")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_the_command_writes_speech_that_says_it_is_synthetic(folder, tmp_path, suffix, capsys):
    source, out = write(tmp_path / "a.wav", 2.0), tmp_path / f"out{suffix}"
    main(["generate", "--source", str(source), "--voice", str(source), "--out", str(out), "--model", str(folder)])
    assert "2.00 s of synthetic speech" in capsys.readouterr().out
    with soundfile.SoundFile(out) as sound:
        assert sound.frames / sound.samplerate == pytest.approx(2.0, abs=0.02)
        assert "nobody said this" in sound.comment
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize("fast", [False, True])
def test_the_command_takes_bfloat16_for_the_network_where_that_is_fast(folder, tmp_path, monkeypatch, fast):
    monkeypatch.setattr("modules.arithmetic.multiplies_bfloat16", lambda device: fast)
    types = set()
    contextualize = SoundStormNetwork.contextualize

    def watch(self, frames, valid=None):
        hidden = contextualize(self, frames, valid)
        types.add(self.head(hidden[:, :1], 0).dtype)
        return hidden

    monkeypatch.setattr(SoundStormNetwork, "contextualize", watch)
    source = write(tmp_path / "a.wav", 1.0)
    out = tmp_path / "out.wav"
    main(["generate", "--source", str(source), "--out", str(out), "--model", str(folder), "--device", "cpu"])
    assert types == {torch.bfloat16 if fast else torch.float32}
    assert soundfile.info(out).duration == 1.0


def test_the_command_says_of_how_many_readings_it_kept_the_best(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("modules.arithmetic.multiplies_bfloat16", lambda device: False)
    source, out = write(tmp_path / "a.wav", 2.0), tmp_path / "out.wav"
    arguments = ["generate", "--source", str(source), "--out", str(out), "--model", str(folder)]
    main([*arguments, "--readings", "3"])
    with soundfile.SoundFile(out) as sound:
        assert "seed 0, the best of 3 readings; nobody" in sound.comment
        found = sound.read()
    system = SpeechSynthesizer.from_pretrained(folder)
    system.choice = ReadingChoice(system.codec, system.semantic, 3)
    assert np.abs(found - system(source).audio.numpy()).max() < 1e-3
    assert np.abs(found - SpeechSynthesizer.from_pretrained(folder)(source).audio.numpy()).max() > 1e-2
    with pytest.raises(ValueError, match="readings=0"):
        main([*arguments, "--readings", "0"])


def test_a_published_system_may_leave_out_the_finest_levels(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("modules.arithmetic.multiplies_bfloat16", lambda device: False)
    system = SpeechSynthesizer.from_pretrained(folder)
    system.schedule = DecodingSchedule(iterations=(4, 0), temperature=0.9)
    system.choice = ReadingChoice(system.codec, system.semantic, 2)
    system.save_pretrained(tmp_path / "coarse")
    source, out, picture = write(tmp_path / "a.wav", 6.0), tmp_path / "out.wav", tmp_path / "tokens.png"
    arguments = ["generate", "--source", str(source), "--voice", str(source), "--out", str(out)]
    main([*arguments, "--model", str(tmp_path / "coarse"), "--picture", str(picture)])
    coarse, _ = soundfile.read(out)
    assert len(coarse) == 6 * 16000
    assert picture.stat().st_size > 1000
    assert "tokens.png: its tokens filling up, the first of 3 chunks" in capsys.readouterr().out
    codes = system.generate(torch.randint(10, (300,)), torch.randint(10, (75,)), torch.randint(16, (2, 75)))
    assert codes.shape == (1, 300)
    main([*arguments, "--model", str(folder), "--readings", "2"])
    assert np.abs(coarse - soundfile.read(out)[0]).max() > 1e-3, "the finer level is heard"


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_named(folder, tmp_path, device):
    source, out = write(tmp_path / "a.wav", 1.0), tmp_path / "out.wav"
    arguments = ["generate", "--source", str(source), "--out", str(out), "--model", str(folder), "--device", device]
    with pytest.raises(ValueError, match=f"device={device} cannot be used here .*; cpu always can"):
        main(arguments)
    assert not out.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_system_speaks_on_a_gpu(folder, tmp_path):
    source, voice = write(tmp_path / "a.wav", 5.0), write(tmp_path / "voice.wav", 2.0)
    made = {}
    for device in ("cpu", "cuda"):
        system = SpeechSynthesizer.from_pretrained(folder).to(device)
        system.choice = ReadingChoice(system.codec, system.semantic, 2)
        made[device] = system(source, voice).audio
    assert made["cuda"].device.type == "cpu"
    assert made["cuda"].shape == made["cpu"].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--source": "folder.wav"}, r"folder\.wav is a folder; give a recording"),
        ({"--voice": "folder.wav"}, r"folder\.wav is a folder; give a recording"),
        ({"--out": "folder.wav"}, r"folder\.wav is a folder; give the name of a file"),
        ({"--seed": str(2**63)}, "seed=9223372036854775808 does not fit into 64 bits"),
    ],
)
def test_the_command_refuses_before_it_works(folder, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(SpeechSynthesizer, "from_pretrained", lambda *_: pytest.fail("it works already"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.wav").mkdir()
    write(tmp_path / "a.wav", 1.0)
    arguments = {"--source": "a.wav", "--out": "out.wav", "--model": str(folder)} | change
    with pytest.raises(ValueError, match=message):
        main(["generate", *(part for pair in arguments.items() for part in pair)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("schedule: null", "does not describe"),
        ("schedule: {temperature: hot}", "temperature='hot' must be a number"),
        ("schedule: {iterations: [4, 1, 1]}", r"schedule\.iterations has 3 numbers, the network 2 levels"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_named_with_its_file(folder, tmp_path, wrong, message):
    shutil.copytree(folder, tmp_path / "system")
    file = tmp_path / "system" / "config.yaml"
    file.write_text(f"chunk_seconds: 4.0\nprompt_seconds: 1.5\n{wrong}\n")
    with pytest.raises(ValueError, match=rf"config\.yaml.*{message}"):
        SpeechSynthesizer.from_pretrained(tmp_path / "system")


def test_the_command_refuses_a_format_it_cannot_write(folder, tmp_path):
    source = write(tmp_path / "a.wav", 1.0)
    with pytest.raises(ValueError, match="told by the suffix"):
        main(["generate", "--source", str(source), "--out", str(tmp_path / "out.mp4"), "--model", str(folder)])


def test_a_system_speaks_from_its_tokenizers_doubts_where_it_is_published_so(
    folder, synthesizer, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.synthesizer.SEGMENT_SECONDS", 2.0)
    softly = SpeechSynthesizer(
        synthesizer.codec, synthesizer.semantic, TrainedNetwork(synthesizer.network, synthesizer.tokens),
        synthesizer.schedule, 4.0, 1.5, soft_semantic=Posterior(5, 2.0),
    )  # fmt: skip
    softly.save_pretrained(tmp_path / "system")
    again = SpeechSynthesizer.from_pretrained(tmp_path / "system")
    assert again.soft_semantic == Posterior(5, 2.0)
    assert synthesizer.soft_semantic is None
    source, voice = write(tmp_path / "a.wav", 3.0), write(tmp_path / "voice.wav", 1.2, level=0.8)
    given = []
    generate = again.generate
    monkeypatch.setattr(again, "generate", lambda *arguments: given.append(arguments[:3]) or generate(*arguments))
    made = again(source, voice).audio
    said, before, _ = given[0]
    assert said.shape == (150, 10)
    assert before.shape == (60, 10)
    audio = torch.from_numpy(soundfile.read(source, dtype="float32")[0])
    halves = [again.semantic.encode_soft(half[None], Posterior(5, 2.0)).spread(10)[0] for half in audio.chunk(2)]
    torch.testing.assert_close(said, torch.cat([half[:75] for half in halves]))
    assert not torch.equal(made, synthesizer(source, voice).audio)
    assert made.shape == (48000,)


@pytest.mark.parametrize(
    ("soft", "message"),
    [("{num_tokens: 0}", "num_tokens=0"), ("{sharp: 1}", "sharp"), ("[1]", "mapping")],
)
def test_doubts_that_make_no_sense_are_refused_naming_the_file(folder, tmp_path, soft, message):
    shutil.copytree(folder, tmp_path / "system")
    config = tmp_path / "system" / "config.yaml"
    config.write_text(config.read_text().replace("soft_semantic: null", f"soft_semantic: {soft}"))
    with pytest.raises(ValueError, match=rf"config\.yaml does not describe.*{message}"):
        SpeechSynthesizer.from_pretrained(tmp_path / "system")


def test_a_system_published_before_there_were_doubts_has_none(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "system")
    config = tmp_path / "system" / "config.yaml"
    config.write_text(config.read_text().replace("soft_semantic: null\n", ""))
    assert SpeechSynthesizer.from_pretrained(tmp_path / "system").soft_semantic is None


def test_more_doubts_than_tokens_are_refused(synthesizer):
    parts = synthesizer.codec, synthesizer.semantic, TrainedNetwork(synthesizer.network, synthesizer.tokens)
    with pytest.raises(ValueError, match="num_tokens=11 of 10 semantic tokens"):
        SpeechSynthesizer(*parts, soft_semantic=Posterior(11))
