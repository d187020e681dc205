import pytest
import torch

from modules.layers import Conformer, apply_rotary, rotary_angles


@pytest.fixture
def conformer():
    return Conformer(dim=16, num_layers=3, num_heads=2, ffn_dim=32).eval()


def test_padding_never_reaches_a_valid_frame(conformer):
    x = torch.randn(1, 9, 16)
    alone = conformer(x)
    for garbage in (0.0, 1e4):
        padded = torch.cat((x, torch.full((1, 7, 16), garbage)), dim=1)
        valid = torch.arange(16)[None] < 9
        torch.testing.assert_close(conformer(padded, valid)[:, :9], alone, atol=1e-5, rtol=1e-5)


def test_invalid_frames_in_front_change_nothing(conformer):
    x = torch.randn(1, 9, 16)
    padded = torch.cat((torch.full((1, 4, 16), 50.0), x), dim=1)
    valid = torch.arange(13)[None] >= 4
    torch.testing.assert_close(conformer(padded, valid)[:, 4:], conformer(x), atol=1e-5, rtol=1e-5)


def test_every_frame_sees_every_other_frame(conformer):
    x = torch.randn(1, 12, 16, requires_grad=True)
    conformer(x)[0, 0, 0].backward()
    assert (x.grad.abs().sum(-1) > 0).all()


def test_convolution_sees_two_frames_on_each_side_with_kernel_5():
    convolution = Conformer(dim=16, num_layers=1, num_heads=2, ffn_dim=32).eval().blocks[0].convolution
    x = torch.randn(1, 11, 16, requires_grad=True)
    convolution(x, None)[0, 5].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


def test_rotary_products_depend_on_distance_alone():
    q, k = torch.randn(8), torch.randn(8)
    cos, sin = rotary_angles(20, 8, torch.device("cpu"))
    turned = lambda x, t: apply_rotary(x[None], cos[t : t + 1], sin[t : t + 1])[0]  # noqa: E731
    torch.testing.assert_close(turned(q, 3) @ turned(k, 7), turned(q, 12) @ turned(k, 16))
    assert not torch.isclose(turned(q, 3) @ turned(k, 7), turned(q, 3) @ turned(k, 9))


def test_activation_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    plain = Conformer(dim=16, num_layers=2, num_heads=2, ffn_dim=32, dropout=0.0)
    saving = Conformer(dim=16, num_layers=2, num_heads=2, ffn_dim=32, dropout=0.0, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 16)
    for net in (plain, saving):
        net(x).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("change", "named"), [({"num_heads": 3}, "num_heads=3"), ({"conv_kernel_size": 4}, "=4 must be odd")]
)
def test_impossible_shapes_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        Conformer(**({"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32} | change))
