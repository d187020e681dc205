"""Codecs small enough for tests: random weights, written to disk and loaded the way real ones are."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
    XcodecConfig,
    XcodecModel,
)

from modules.codec import AudioCodec, DacCodec, EncodecCodec, LyraCodec, MimiCodec, ResidualVQ, XcodecCodec


def tiny_dac() -> DacModel:
    return DacModel(
        DacConfig(
            encoder_hidden_size=4,
            # An odd stride, as in the 16 kHz model: its decoder comes out a few samples short.
            downsampling_ratios=[2, 4, 5, 8],
            decoder_hidden_size=32,
            n_codebooks=5,
            codebook_size=16,
            codebook_dim=4,
        )
    )


def tiny_encodec(**changes: object) -> EncodecModel:
    model = EncodecModel(
        EncodecConfig(
            num_filters=4,
            hidden_size=8,
            codebook_size=16,
            num_lstm_layers=1,
            target_bandwidths=[0.6, 1.2, 2.4],
            **changes,
        )
    )
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(std=0.02)
    return model


def tiny_mimi() -> MimiModel:
    model = MimiModel(
        MimiConfig(
            num_filters=4,
            hidden_size=16,
            codebook_size=16,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            num_quantizers=4,
            num_hidden_layers=1,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            upsample_groups=16,
        )
    )
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    return model


def tiny_xcodec() -> XcodecModel:
    model = XcodecModel(
        XcodecConfig(
            target_bandwidths=[0.2, 0.4, 0.8],
            codebook_size=16,
            acoustic_model_config={
                "model_type": "dac",
                "encoder_hidden_size": 4,
                "decoder_hidden_size": 32,
                "downsampling_ratios": [8, 5, 4, 2],
                "upsampling_ratios": [8, 5, 4, 2],
                "hidden_size": 16,
            },
            semantic_model_config={
                "model_type": "hubert",
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "conv_dim": [8] * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        )
    )
    for layer in model.quantizer.quantizers:
        layer.codebook.embed.normal_()
    return model


def write_tiny_lyra(folder: Path) -> Path:
    """Write networks of 16 samples and 4 values per frame, each answering to the frame before as well."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def weights(rows: int, columns: int) -> np.ndarray:
        return generator.normal(size=(rows, columns)).astype(np.float32)

    (folder / "soundstream_encoder.tflite").write_bytes(
        stateful_linear((1, 16), (1, 1, 4), weights(4, 16), weights(4, 16))
    )
    (folder / "lyragan.tflite").write_bytes(stateful_linear((1, 1, 4), (1, 16), weights(16, 4), weights(16, 4)))
    return folder


def stateful_linear(source: Sequence[int], target: Sequence[int], now: np.ndarray, before: np.ndarray) -> bytes:
    """Build a TFLite model of ``now @ frame + before @ frame before``, its past kept in a variable, as Lyra's are."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the extra 'lyra' is not installed")
    flatbuffers = pytest.importorskip("flatbuffers")
    operators = schema.BuiltinOperator
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]

    def tensor(shape: Sequence[int], data: np.ndarray | None = None, kind: int = schema.TensorType.FLOAT32) -> object:
        made = schema.TensorT()
        made.shape, made.type = list(shape), kind
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        return made

    def operator(code: int, inputs: list[int], outputs: list[int], name: str = "", **options: object) -> object:
        made, opcode = schema.OperatorT(), schema.OperatorCodeT()
        opcode.builtinCode, opcode.deprecatedBuiltinCode, opcode.version = code, min(code, 127), 1
        model.operatorCodes.append(opcode)
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, inputs, outputs
        if name:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            made.builtinOptions = getattr(schema, f"{name}T")()
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        return made

    def handle(index: int) -> object:
        return operator(operators.VAR_HANDLE, [], [index], "VarHandleOptions", container="", sharedName="past")

    rows = now.shape[0]
    resource = schema.TensorType.RESOURCE
    main, start = schema.SubGraphT(), schema.SubGraphT()
    main.tensors = [
        tensor(source),
        tensor([], kind=resource),
        tensor(source),
        tensor(now.shape, now),
        tensor(before.shape, before),
        *(tensor([1, rows]) for _ in range(3)),
        tensor(target),
        tensor([len(target)], np.asarray(target, np.int32), schema.TensorType.INT32),
    ]
    main.operators = [
        operator(operators.CALL_ONCE, [], [], "CallOnceOptions", initSubgraphIndex=1),
        handle(1),
        operator(operators.READ_VARIABLE, [1], [2], "ReadVariableOptions"),
        operator(operators.FULLY_CONNECTED, [0, 3, -1], [5], "FullyConnectedOptions"),
        operator(operators.FULLY_CONNECTED, [2, 4, -1], [6], "FullyConnectedOptions"),
        operator(operators.ADD, [5, 6], [7], "AddOptions"),
        operator(operators.RESHAPE, [7, 9], [8], "ReshapeOptions", newShape=list(target)),
        operator(operators.ASSIGN_VARIABLE, [1, 0], [], "AssignVariableOptions"),
    ]
    main.inputs, main.outputs = [0], [8]
    start.tensors = [tensor([], kind=resource), tensor(source, np.zeros(source, np.float32))]
    start.operators = [handle(0), operator(operators.ASSIGN_VARIABLE, [0, 1], [], "AssignVariableOptions")]
    start.inputs, start.outputs = [], []
    model.subgraphs = [main, start]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


TRANSFORMERS: dict[str, tuple[type[AudioCodec], Callable[[], PreTrainedModel]]] = {
    "dac": (DacCodec, tiny_dac),
    "encodec": (EncodecCodec, tiny_encodec),
    "mimi": (MimiCodec, tiny_mimi),
    "xcodec": (XcodecCodec, tiny_xcodec),
}


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny model in the format of its real ones, written once."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            path = tmp_path_factory.mktemp("codecs") / kind
            with torch.random.fork_rng():
                torch.manual_seed(0)
                if kind == "lyra":
                    write_tiny_lyra(path)
                    ResidualVQ(torch.randn(5, 8, 4)).save(path / "rvq.safetensors")
                else:
                    TRANSFORMERS[kind][1]().eval().save_pretrained(path)
            folders[kind] = path
        return folders[kind]

    return folder


@pytest.fixture(scope="session")
def build(tiny_folders: Callable[[str], Path]) -> Callable[..., AudioCodec]:
    """Load the codec of a kind from the tiny folder, or from another one."""

    def load(kind: str, num_quantizers: int | None = None, folder: Path | None = None) -> AudioCodec:
        folder = folder or tiny_folders(kind)
        if kind == "lyra":
            return LyraCodec(folder, folder / "rvq.safetensors", num_quantizers)
        return TRANSFORMERS[kind][0](folder, num_quantizers)

    return load


@pytest.fixture(scope="session", params=[*TRANSFORMERS, "lyra"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def codec(kind: str, build: Callable[..., AudioCodec]) -> AudioCodec:
    return build(kind)
