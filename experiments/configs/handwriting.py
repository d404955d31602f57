"""Digits as other people write them: five of the network layers on digits changed at random."""

from experiments.workdir.config import Config

config = Config(
    network="layers",
    members=5,
    epochs=15,
    learning_rate=0.002,
    schedule="onecycle",
    augment="handwriting",
)
