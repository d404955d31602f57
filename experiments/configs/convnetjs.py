"""ConvNetJS's network of its MNIST page, with its Adadelta, batches and random crops."""

from experiments.workdir.config import Config

config = Config(
    network="convnetjs",
    augment="shift",
    epochs=5,
    batch_size=20,
    optimizer="adadelta",
    learning_rate=1.0,
    weight_decay=5e-5,  # its 0.001, which is divided by the batch with the gradients
)
