"""What the files under configs/ have to agree on; nothing is built, see tests/test_configs.py."""

from collections import defaultdict
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from modules.soundstorm import DecodingSchedule
from modules.token_stage import TokenStage

CONFIGS = Path(__file__).parents[1] / "configs"
STAGES = {
    str(path.relative_to(CONFIGS)): stage
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if {"trainer", "data"} <= (stage := yaml.safe_load(path.read_text())).keys()
}


def callbacks(stage, name):
    listed = stage["trainer"].get("callbacks", ())
    return [callback.get("init_args", {}) for callback in listed if callback["class_path"].endswith(f".{name}")]


def fits_a_token_stage(stage):
    module, _, kind = stage["model"]["class_path"].rpartition(".")
    fits = "max_steps" in stage["trainer"] or "max_epochs" in stage["trainer"]
    return fits and issubclass(getattr(import_module(module), kind), TokenStage)


def shared(places):
    names = defaultdict(list)
    for name, place in places.items():
        names[str(Path(place))].append(name)
    return {place: those for place, those in names.items() if len(those) > 1}


def test_no_stage_overwrites_what_another_one_wrote():
    roots = {name: stage["trainer"]["default_root_dir"] for name, stage in STAGES.items()}
    records = dict(roots)  # config.yaml lies in the logger's folder, where there is a logger
    for name, stage in STAGES.items():
        if loggers := stage["trainer"]["logger"]:
            values = (loggers[0] if isinstance(loggers, list) else loggers)["init_args"]  # the first one's folder
            records[name] = str(Path(values["save_dir"], values["name"], values["version"]))
    assert shared(roots) == {}
    assert shared(records) == {}


def without_download(source):
    """The source with every ``download: false`` taken out, which is no part of what it is."""
    if isinstance(source, dict):
        return {key: without_download(value) for key, value in source.items() if key != "download"}
    return [without_download(value) for value in source] if isinstance(source, list) else source


@pytest.mark.parametrize("preset", ["demo", "base", "paper"])
def test_the_originals_to_listen_to_are_what_was_tokenized(preset):
    """Only there do the recordings have the ids, and the parts, that the token set has."""
    fit = STAGES[f"soundstorm/{preset}.yaml"]
    [made] = [
        stage["data"]["init_args"]
        for stage in STAGES.values()
        if {"output_dir": fit["data"]["init_args"]["token_sets"], "split": "train"} in callbacks(stage, "TokenWriter")
    ]
    [logger] = callbacks(fit, "AudioSampleLogger")
    assert without_download(logger["originals"]) == made["source"]
    assert logger.get("segment_seconds") == made.get("segment_seconds")


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if callbacks(stage, "AudioSampleLogger")])
def test_listening_during_training_downloads_no_speech(name):
    [logger] = callbacks(STAGES[name], "AudioSampleLogger")
    sources = logger["originals"]["init_args"].get("sources", [logger["originals"]])
    for source in sources:
        assert source["class_path"] != "datamodules.audio.HuggingFaceAudio" or not source["init_args"]["download"]


@pytest.mark.parametrize("name", ["seed_tts", "librispeech_pc"])
def test_a_list_is_evaluated_on_the_recordings_that_it_names(name):
    """Its prompts are among them, or SIM-o could not be computed."""
    generated, evaluated = STAGES[f"generate/{name}.yaml"], STAGES[f"evaluate/{name}.yaml"]
    data = generated["data"]["init_args"]
    assert data["prompt_source"] == "list"
    reference = evaluated["data"]["init_args"]["reference"]
    assert reference["class_path"] == "datamodules.audio.EvaluationList"
    assert reference["init_args"]["path"] == data["prompt_list"]
    [writer] = callbacks(generated, "AudioWriter")
    assert evaluated["data"]["init_args"]["systems"] == {writer["condition"]: writer["output_dir"]}


def test_what_is_trained_on_tokens_is_found():
    found = {name.split("/")[0] for name, stage in STAGES.items() if fits_a_token_stage(stage)}
    assert found == {"soundstorm", "audiolm", "valle"}


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if fits_a_token_stage(stage)])
def test_training_on_tokens_goes_on_exactly_after_a_resume(name):
    assert len(callbacks(STAGES[name], "StepSeed")) == 1


def test_the_ablation_evaluates_every_schedule():
    schedules = {path.stem for path in (CONFIGS / "schedule").glob("*.yaml")}
    systems = set(STAGES["evaluate/ablation.yaml"]["data"]["init_args"]["systems"])
    assert systems == schedules | {"reconstruction", "best_of_4"}


def test_the_best_of_four_readings_differs_from_one_by_the_choice_alone():
    one, four = (deepcopy(STAGES[f"generate/small_{name}.yaml"]) for name in ("guided", "best_of_4"))
    choice = four["model"]["init_args"].pop("choice")
    assert choice["init_args"]["readings"] == 4
    assert four["model"] == one["model"]
    assert four["data"]["init_args"].pop("batch_frames") < one["data"]["init_args"].pop("batch_frames")
    assert four["data"] == one["data"]


def test_a_training_departs_from_the_preset_where_its_name_says_so():
    small = STAGES["soundstorm/small.yaml"]
    changes = {path.stem: yaml.safe_load(path.read_text()) for path in (CONFIGS / "training").glob("*.yaml")}
    [kept] = changes.pop("random_embeddings")["trainer"].values()
    assert kept == [c for c in small["trainer"]["callbacks"] if not c["class_path"].endswith("CodebookInitialization")]
    assert len(kept) == len(small["trainer"]["callbacks"]) - 1
    masking = {name: change["model"]["init_args"]["masking"]["init_args"] for name, change in changes.items()}
    assert masking == {"uniform_levels": {"coarse_weight": 0.0}, "always_prompted": {"prompt_dropout": 0.0}}
    assert small["model"]["init_args"]["masking"]["init_args"].keys() == {"coarse_weight", "prompt_dropout"}


def test_the_ablation_of_the_training_evaluates_every_training():
    trainings = {path.stem for path in (CONFIGS / "training").glob("*.yaml")}
    systems = set(STAGES["evaluate/training.yaml"]["data"]["init_args"]["systems"])
    assert systems == trainings | {"small", "guided", "reconstruction"}


def test_no_schedule_is_rendered_twice_by_the_ablation():
    schedules = [DecodingSchedule(**yaml.safe_load(path.read_text())) for path in (CONFIGS / "schedule").glob("*.yaml")]
    assert len(set(map(str, schedules))) == len(schedules)


@pytest.mark.parametrize("path", sorted((CONFIGS / "schedule").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_schedule_departs_from_the_papers_where_its_name_says_so(path):
    schedule = DecodingSchedule(**yaml.safe_load(path.read_text()))
    changed = schedule != DecodingSchedule(iterations=[16] + [1] * 11)
    assert changed == (path.stem != "choice_noise_0")
    if (levels := path.stem.partition("-")[0]) in ("level1", "finer"):
        assert schedule.iterations[levels == "finer"] == int(path.stem.partition("-")[2])


@pytest.mark.parametrize("system", ["audiolm/coarse", "audiolm/fine", "valle/ar", "valle/nar"])
def test_the_comparison_systems_see_the_frames_that_soundstorm_sees(system):
    """The small presets differ in the network only."""
    seen, expected = (
        [
            stage["trainer"]["max_steps"],
            stage["model"]["init_args"]["lr_scheduler"],
            stage["model"]["init_args"]["optimizer"],
            stage["data"],
        ]
        for stage in (STAGES[f"{system}/small.yaml"], STAGES["soundstorm/small.yaml"])
    )
    assert seen == expected
