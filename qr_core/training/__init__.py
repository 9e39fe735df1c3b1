"""Training: the scripts that made the embedded models. They are no part of the wheel.

`data`, `packs` and `batches` make training prompts, `teacher` and `token_teacher` say what they should look like to the
model, `losses` and `forward` compare, `train` runs, `select` chooses the heads: all of the decoder,
`embedded-fast`. `late` has those of the encoder, the default.
"""
