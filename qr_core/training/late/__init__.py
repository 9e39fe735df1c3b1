"""Training of the encoder that is read late: read layers on a sentence encoder, whose own weights stay as they are."""
