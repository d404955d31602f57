"""AlphaGo's policy network as published: 192 filters, batches of 16, SGD without momentum."""

from experiments.workdir.config import Config

config = Config(
    network="policy",
    augment="symmetries",
    epochs=12,
    batch_size=16,
    optimizer="momentum",
    beta1=0.0,
    learning_rate=0.003,
)
