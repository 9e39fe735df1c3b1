"""Runs of training: what they keep, average, go on from, and ship."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from qr_core import QRScorer
from qr_core.training import train
from tests.unit.training.tiny import TINY, batches_for, forks


def test_the_model_is_the_mean_of_the_last_checkpoints(initial_model, tmp_path):
    recipe = train.Recipe(**TINY, max_steps=100, averaged_from=0.5, sharpness=0.5)
    run = train.Run(initial_model, tmp_path, recipe)
    read, other = (run.model.model.layers[layer].self_attn.q_proj.weight for layer in (1, 0))
    for step, value in ((20, 9.0), (60, 1.0), (80, 3.0), (80, 7.0)):  # the first is too early, the last came twice
        run.step = step
        with torch.no_grad():
            read.fill_(value)
            other.fill_(value)
        run.save_checkpoint()
    again = train.Run(initial_model, tmp_path, recipe)
    again.save_model()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert model.model.layers[0].self_attn.q_proj.weight.detach().unique().item() == 2.0
    assert model.model.layers[1].self_attn.q_proj.weight.detach().unique().item() == 1.0


def test_frozen_words_stay(training_data, initial_model, tmp_path):
    recipe = train.Recipe(**TINY, minutes=10, max_steps=2, log_every=2, checkpoint_every=4)
    run = train.Run(initial_model, tmp_path / "run", recipe)
    before = run.model.model.embed_tokens.weight.detach().clone()
    sources = train.Sources(training_data, initial_model, tmp_path / "run")
    run.take_step(batches_for(initial_model, recipe).make([sources.packs.draw(random.Random(0))], random.Random(0)))
    assert torch.equal(run.model.model.embed_tokens.weight, before)


@forks
def test_training_runs_stops_and_resumes(training_data, initial_model, tmp_path):
    """A short run writes a model the scorer can use; a second call, with a worker, goes on from its checkpoint."""
    out = tmp_path / "out"
    recipe = train.Recipe(**TINY, minutes=10, max_steps=4, log_every=2, checkpoint_every=4)
    train.train(training_data, initial_model, out, recipe)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4]
    train.train(training_data, initial_model, out, replace(recipe, max_steps=6), workers=1)
    steps = [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    scorer = QRScorer.from_pretrained(out / "model", device="cpu")
    assert scorer.heads.heads[0][2] >= scorer.heads.heads[-1][2]
    assert len(scorer.rank("river", ["stone", "river"])) == 2
    assert (
        train.Run(initial_model, tmp_path / "next", replace(recipe, layers=4, read_layers=(2,)), out / "model").step
        == 0
    )


def test_a_model_may_be_wider_than_its_teacher(training_data, initial_model, tmp_path):
    """The words keep their angles, and the readouts lead from its width to the teacher's."""
    wide = train.Recipe(**TINY | {"hidden": 64, "heads": 4}, minutes=10, max_steps=2, log_every=2)
    run = train.Run(initial_model, tmp_path / "run", wide)
    table, words = run.model.model.embed_tokens.weight.detach(), run.teacher.words()
    words = words - words.mean(dim=0)
    assert table.shape == (len(words), 64)
    angles = [torch.nn.functional.normalize(rows[1000:1010], dim=1) for rows in (table, words)]
    assert torch.allclose(*(rows @ rows.T for rows in angles), atol=1e-4)
    train.train(training_data, initial_model, tmp_path / "run", wide)
    assert QRScorer.from_pretrained(tmp_path / "run" / "model", device="cpu").rank("river", ["stone", "river"])
    with pytest.raises(ValueError, match="hidden 16 is less than the 32"):
        train.Run(initial_model, tmp_path / "narrow", replace(wide, hidden=16))


def test_a_run_goes_on_from_another(initial_model, tmp_path):
    """From its mean, in full precision and before it was sharpened, with its readouts."""
    recipe = train.Recipe(**TINY, max_steps=2, averaged_from=0.5)
    first = train.Run(initial_model, tmp_path / "first", recipe)
    first.step = 2
    first.save_checkpoint()
    weights = first.model.model.layers[1].self_attn.q_proj.weight.detach().clone()
    first.save_model()
    second = train.Run(initial_model, tmp_path / "second", replace(recipe, seed=1), tmp_path / "first")
    assert second.step == 0
    assert torch.equal(second.model.model.layers[1].self_attn.q_proj.weight, weights)
    assert torch.equal(second.readouts.ends.weight, first.readouts.ends.weight)
