"""The teacher's states of tokens."""

from __future__ import annotations

import torch

from qr_core.training import token_teacher


def test_single_states_are_those_of_the_text_read_whole(initial_model):
    """Whatever else stands in the batch, a token's state is the one in its own text, and a text's vector their mean."""
    teacher = token_teacher.TokenTeacher(initial_model)
    texts = [list(range(1000, 1000 + length)) for length in (3, 40, 1, 38)]
    found, vectors = teacher.states(teacher.texts(texts))
    assert found.shape == (82, 32)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))
    for text, own, vector in zip(texts, found.split([len(text) for text in texts]), vectors, strict=True):
        with torch.no_grad():
            ids = torch.tensor([[teacher.start, *text, teacher.end]])
            expected = teacher.model(input_ids=ids).last_hidden_state[0].float()
        assert torch.allclose(own, expected[1:-1], atol=0.05)
        assert torch.allclose(vector, torch.nn.functional.normalize(expected.mean(dim=0), dim=0), atol=0.01)
    assert teacher.words().shape[0] == teacher.model.config.vocab_size
