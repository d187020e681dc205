import os

import pytest
import torch

from modules import model_folder
from modules.model_folder import (
    class_path,
    find_class,
    find_folder,
    missing_files,
    read_config,
    read_weights,
    weights_digest,
    write_model,
)
from modules.semantic import LogMelFeatures

STATE = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1)}


def test_a_model_comes_back_from_its_folder(tmp_path):
    config = {"class_path": "a.B", "init_args": {"z": 1, "a": [2.5, None]}}
    write_model(tmp_path / "new" / "folder", config, STATE, metadata={"made": "today"}, card="# Card\n")
    folder = tmp_path / "new" / "folder"
    assert sorted(os.listdir(folder)) == ["README.md", "config.yaml", "model.safetensors"]
    assert read_config(folder, "model") == config
    assert (folder / "config.yaml").read_text().index("z:") < (folder / "config.yaml").read_text().index("a:\n")
    tensors, metadata = read_weights(folder)
    assert metadata == {"made": "today"}
    assert all(torch.equal(tensors[name], value) for name, value in STATE.items())
    assert (folder / "README.md").read_text() == "# Card\n"


def test_weights_are_rounded_where_asked_for_and_counts_never(tmp_path):
    write_model(tmp_path, {}, STATE, torch.float16)
    tensors, metadata = read_weights(tmp_path)
    assert {name: value.dtype for name, value in tensors.items()} == {"a": torch.int64, "b": torch.float16}
    assert metadata == {"format": "pt"}


def test_others_may_read_what_the_mask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_model(tmp_path, {}, STATE, card="#")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}


def test_what_a_folder_lacks_is_listed(tmp_path):
    assert missing_files(tmp_path) == ["config.yaml", "model.safetensors"]
    write_model(tmp_path, {}, STATE)
    assert missing_files(tmp_path) == []
    assert missing_files(tmp_path, ["config.yaml", "codec"]) == ["codec"]


@pytest.mark.parametrize("content", [b"", b"just text", b"{", b"\xff\xfe\xfa"])
def test_a_damaged_configuration_is_named_with_what_it_should_be(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.yaml does not describe a clock"):
        read_config(tmp_path, "clock")


def test_damaged_weights_are_named(tmp_path):
    write_model(tmp_path, {}, STATE)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_weights(tmp_path)


def test_a_folder_is_taken_before_the_hub_is_asked_and_its_absence_is_named(tmp_path, monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, allow_patterns))
        raise OSError("no network")

    monkeypatch.setattr(model_folder, "snapshot_download", snapshot)
    assert find_folder(tmp_path) == tmp_path
    assert asked == []
    with pytest.raises(FileNotFoundError, match=r"us/model: no such folder, .* from the hub \(OSError\)"):
        find_folder("us/model", ["codec/config.yaml"])
    assert asked == [("us/model", ["codec/config.yaml"])]


def test_a_name_that_the_hub_cannot_have_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder, and not the id of a repository"):
        find_folder(tmp_path / "no" / "where")


def test_classes_of_a_package_are_found_by_their_public_names():
    path = class_path(LogMelFeatures, "modules.semantic")
    assert path == "modules.semantic.LogMelFeatures"
    assert find_class(path, "modules.semantic") is LogMelFeatures
    assert find_class("modules.semantic.log_mel.LogMelFeatures", "modules.semantic") is LogMelFeatures
    assert class_path(LogMelFeatures, "modules.codec") == "modules.semantic.log_mel.LogMelFeatures"


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "torch.nn.Linear",
        "LogMelFeatures",
        "modules.semantics.LogMelFeatures",
        "modules.semantic.log_mel.mel_filter_bank",
        "modules.semantic.distilled.Conformer",
        "modules.semantic.nowhere.LogMelFeatures",
        "modules.semantic.Nothing",
    ],
)
def test_what_is_no_class_of_a_package_is_not_found(path):
    assert find_class(path, "modules.semantic") is None


def test_the_digest_of_weights_is_that_of_names_and_values_in_any_order_and_layout():
    digest = weights_digest(STATE)
    assert digest == "xxh3:d0c481e421869653"
    assert weights_digest({"a": STATE["a"], "b": STATE["b"].T.contiguous().T}) == digest
    for other in ({**STATE, "a": torch.tensor(2)}, {"c": STATE["b"], "a": STATE["a"]}, {"b": STATE["b"].half()}):
        assert weights_digest(other) != digest
