"""AlphaGo's policy network with 48 filters, which a CPU can train; 192 were published."""

from experiments.workdir.config import Config

config = Config(
    network="policy",
    network_options="filters=48",
    augment="symmetries",
    epochs=10,
    batch_size=128,
    learning_rate=0.002,
    schedule="onecycle",
)
