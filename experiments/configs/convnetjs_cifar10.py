"""ConvNetJS's network of its CIFAR-10 page, with its Adadelta, batches and random images."""

from experiments.workdir.config import Config

config = Config(
    network="convnetjs",
    network_options="layers=conv 5x5 16; pool 2; conv 5x5 20; pool 2; conv 5x5 20; pool 2",
    dataset="cifar10",
    augment="crop-flip",
    epochs=10,
    batch_size=4,
    optimizer="adadelta",
    learning_rate=1.0,
    weight_decay=2.5e-5,  # its 0.0001, which is divided by the batch with the gradients
)
