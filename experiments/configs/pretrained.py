"""The networks that come with the package: small ones, trained on digits changed at random."""

from experiments.workdir.config import Config

config = Config(
    network="fast",
    members=6,
    epochs=15,
    learning_rate=0.002,
    schedule="onecycle",
    augment="handwriting",
)
