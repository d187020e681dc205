import torch

from modules.model_folder import weights_digest


def test_the_digest_of_weights_is_that_of_names_and_values_in_any_order_and_layout():
    state = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1)}
    digest = weights_digest(state)
    assert digest == "xxh3:d0c481e421869653"
    assert weights_digest({"a": state["a"], "b": state["b"].T.contiguous().T}) == digest
    for other in ({**state, "a": torch.tensor(2)}, {"c": state["b"], "a": state["a"]}, {"b": state["b"].half()}):
        assert weights_digest(other) != digest
