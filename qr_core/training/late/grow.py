"""Read layers: layers put into a BERT encoder that leave its states as they are, and whose heads are there to be read.

Knows nothing of training or texts: it takes an encoder, and query and key projections for each read layer.

A pooling layer adds to every token the mean of all tokens, many times over, and normalises the sum: each token then
stands for its whole text, as in the sentence encoder's own vector, of the same length whatever the text. Without that
division attention mass favours texts whose tokens are alike. It is a layer of BERT's like any other: its logits are
zero, so it looks at all tokens alike.

A read layer's attention and feed-forward outputs are zero. The layer norm before it loses its gain and bias, which
become those of the read layer's last one: a normalised vector stays as it is when it is normalised again. The heads see
the states without gain and bias, so both go into their projections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

NORM = "output.LayerNorm"
POOLED = 30.0
"""How often a pooling layer adds the mean."""


@dataclass(frozen=True)
class Projections:
    """Query and key projections of one read layer, from the encoder's states, its heads below each other.

    A bias of the keys would change nothing: it adds the same to all logits of a row.

    Attributes
    ----------
    query, key : Tensor
        Shape (hidden, hidden).
    bias : Tensor
        Of the queries, shape (hidden,).
    """

    query: Tensor
    key: Tensor
    bias: Tensor


def places(read: Iterable[int]) -> dict[int, int]:
    """The number of each read layer in the grown encoder, by the number of encoder layers before it."""
    return {after: after + before for before, after in enumerate(sorted(read))}


def grown(encoder: BertModel, read: dict[int, Projections]) -> BertModel:
    """A copy of `encoder` with read layers.

    Parameters
    ----------
    encoder : BertModel
        Its own weights are neither changed nor shared.
    read : dict of int to Projections
        By how many of the encoder's layers stand before the read layer: 0 reads the embeddings.

    Raises
    ------
    ValueError
        When the encoder has fewer layers.
    """
    config, deepest = encoder.config, max(read)
    if deepest > config.num_hidden_layers:
        raise ValueError(f"a read layer after layer {deepest}: the encoder has {config.num_hidden_layers}")
    total = config.num_hidden_layers + len(read)
    taller = BertModel(BertConfig.from_dict({**config.to_dict(), "num_hidden_layers": total}))
    old, new = encoder.state_dict(), taller.state_dict()
    at = places(read)
    numbers = iter(number for number in range(total) if number not in at.values())
    moved = dict(enumerate(numbers))
    for name, value in old.items():
        new[_renamed(name, moved)].copy_(value)
    for after, number in sorted(at.items()):
        before = "embeddings.LayerNorm" if number == 0 else f"encoder.layer.{number - 1}.{NORM}"
        layer = f"encoder.layer.{number}."
        for name, value in new.items():
            if name.startswith(layer):
                value.fill_(1.0 if name.endswith("attention.output.LayerNorm.weight") else 0.0)
        gain, bias = (new[f"{before}.{kind}"].clone() for kind in ("weight", "bias"))
        for kind, value, plain in (("weight", gain, 1.0), ("bias", bias, 0.0)):
            new[f"{layer}{NORM}.{kind}"].copy_(value)
            new[f"{before}.{kind}"].fill_(plain)
        new[f"{layer}attention.self.query.weight"].copy_(read[after].query * gain)
        new[f"{layer}attention.self.query.bias"].copy_(read[after].bias + read[after].query @ bias)
        new[f"{layer}attention.self.key.weight"].copy_(read[after].key * gain)
    taller.load_state_dict(new)
    taller.train(mode=False)
    return taller


def _renamed(name: str, moved: dict[int, int]) -> str:
    """The name of an encoder's parameter after its layers have moved up."""
    parts = name.split(".")
    if parts[:2] == ["encoder", "layer"]:
        parts[2] = str(moved[int(parts[2])])
    return ".".join(parts)


def with_pooling(encoder: BertModel, times: float = POOLED) -> BertModel:
    """A copy of `encoder` with a pooling layer on top."""
    number, hidden = encoder.config.num_hidden_layers, encoder.config.hidden_size
    taller = BertModel(BertConfig.from_dict({**encoder.config.to_dict(), "num_hidden_layers": number + 1}))
    new, layer = taller.state_dict(), f"encoder.layer.{number}."
    for name, value in new.items():
        if name in encoder.state_dict():
            value.copy_(encoder.state_dict()[name])
        else:
            value.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    new[f"{layer}attention.self.value.weight"].copy_(torch.eye(hidden))
    new[f"{layer}attention.output.dense.weight"].copy_(times * torch.eye(hidden))
    taller.load_state_dict(new)
    taller.train(mode=False)
    return taller


def rotated(states: Tensor, heads: int, logit: float, power: float, seed: int) -> Projections:
    """Projections that know nothing but the states' statistics: each head a slice of one random rotation.

    Parameters
    ----------
    states : Tensor
        A sample of the encoder's states before the read layer, shape (tokens, hidden).
    logit : float
        What a state's product with itself comes to in a head, on the mean.
    power : float
        0 leaves the states' directions as they are, 1 gives each the same variance.
    seed : int
        Of the rotation.
    """
    hidden = states.shape[1]
    mean = states.mean(dim=0)
    values, directions = torch.linalg.eigh((states - mean).T @ (states - mean) / len(states))
    values = values.clamp(min=float(values.max()) * 1e-4)
    noise = torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(seed))
    matrix = torch.linalg.qr(noise)[0] @ directions @ torch.diag(values ** (-power / 2)) @ directions.T
    square = ((states - mean) @ matrix.T).pow(2).sum(dim=1).mean()
    matrix = matrix * (logit * heads * (hidden / heads) ** 0.5 / square).sqrt()
    return Projections(matrix, matrix.clone(), -(matrix @ mean))
