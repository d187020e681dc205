"""What a command loads before it can say what is wrong, or speak."""

import subprocess
import sys
from importlib import import_module

import pytest

# They take seconds to import, and torch takes as long again.
TRAINING = ("lightning", "transformers.modeling_utils", "torchmetrics", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Run code in a Python of its own and return the modules that are loaded at its end."""
    asked = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_who_speaks_loads_nothing_that_only_training_needs():
    loaded = loaded_by("from pipeline.synthesizer import SpeechSynthesizer")
    assert "torch" in loaded
    assert not loaded & set(TRAINING)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--help"], ["--source=none.wav", "--out=a.wav", "--model=m"]])
def test_what_is_wrong_with_a_command_is_said_before_torch_is_loaded(arguments):
    loaded = loaded_by(
        f"import pipeline.cli; pipeline.cli.console(lambda: pipeline.cli.main(['generate', *{arguments}]))"
    )
    assert "pipeline.generate" in loaded
    assert "torch" not in loaded


PACKAGES = ["codec", "codec.soundstream", "semantic", "soundstorm", "tokenization"]


@pytest.mark.parametrize("name", PACKAGES)
def test_what_is_imported_when_it_is_asked_for_is_there(name):
    package = import_module(f"modules.{name}")
    for exported in package.__all__:
        assert getattr(package, exported).__name__ == exported
    with pytest.raises(AttributeError, match=f"module 'modules.{name}' has no attribute 'nonsense'"):
        _ = package.nonsense


LATE = {
    "modules.codec.DacCodec": "predict --model.help modules.tokenization.Tokenization",
    "modules.semantic.TransformersFeatures": "fit --model modules.semantic.module.SemanticTokenizerTraining "
    "--model.tokenizer.help modules.semantic.SemanticTokenizer",
}


@pytest.mark.parametrize("name", LATE)
def test_the_help_of_a_stage_lists_what_packages_import_late(name):
    command = [sys.executable, "-m", "pipeline", *LATE[name].split()]
    assert name in subprocess.run(command, capture_output=True, text=True, check=True).stdout
