#!/usr/bin/env python3
"""Trains the two small networks that Convoy carries, on Fashion-MNIST, and writes them as ONNX files.

    scripts/train-fashion-mnist.py --out models

Needs Debian's python3-torch and dataset-fashion-mnist. Takes about a quarter of an hour on one core of a laptop: as many
epochs as --minutes allows each network. Normalisation and softmax are part of the exported networks: their input is
[n, 1, 28, 28] with grey values divided by 255, their output the probabilities [n, 10].

Writes for each network NAME:
    fmnist_NAME.onnx         BatchNormalization folded into the convolutions, batch dimension "n"
    fmnist_NAME_nofold.onnx  as trained, batch of one (--nofold)
"""
import argparse
import gzip
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.2860, 0.3530  # of all training pixels, values from 0 to 1
CLASSES = 10
SIDE = 28
OPSET = 13


# ---- the data ------------------------------------------------------------------------------------------------------


def read_idx(folder, name, header):
    """The bytes behind the header of an IDX file."""
    with gzip.open(os.path.join(folder, name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header).copy()


def load(folder, part):
    """Pictures [count, 1, 28, 28] from 0 to 1 and classes [count] of "train" or "t10k"."""
    pictures = torch.from_numpy(read_idx(folder, f"{part}-images-idx3-ubyte.gz", 16))
    labels = torch.from_numpy(read_idx(folder, f"{part}-labels-idx1-ubyte.gz", 8))
    return pictures.reshape(-1, 1, SIDE, SIDE).float() / 255, labels.long()


def normalise(pictures):
    return (pictures - MEAN) / STD


# ---- the networks --------------------------------------------------------------------------------------------------


def conv_bn_relu(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Vgg(nn.Module):
    """Three pairs of 3x3 convolutions, each followed by pooling, and two dense layers."""

    def __init__(self):
        super().__init__()
        # One-letter names end up in the names of the ONNX nodes: those of the file that the project carries.
        self.f = nn.Sequential(
            conv_bn_relu(1, 16), conv_bn_relu(16, 16), nn.MaxPool2d(2),
            conv_bn_relu(16, 32), conv_bn_relu(32, 32), nn.MaxPool2d(2),
            conv_bn_relu(32, 64), conv_bn_relu(64, 64), nn.MaxPool2d(2))
        self.c = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 9, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, CLASSES))

    def forward(self, x):
        return self.c(self.f(x))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.c1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(outputs)
        self.c2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(outputs)
        self.d = None
        if stride != 1 or inputs != outputs:
            self.d = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.b1(self.c1(x)))
        y = self.b2(self.c2(y))
        return F.relu(y + (x if self.d is None else self.d(x)))


class ResNet(nn.Module):
    """A first convolution, six residual blocks and one dense layer."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(
            conv_bn_relu(1, 16), nn.MaxPool2d(2),
            Block(16, 24, 1), Block(24, 24, 1), Block(24, 48, 2), Block(48, 48, 1), Block(48, 64, 2), Block(64, 64, 1))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.f(x), 1), 1))


class Whole(nn.Module):
    """A network with what comes before and after it, as it is exported."""

    def __init__(self, network):
        super().__init__()
        self.m = network

    def forward(self, x):
        return torch.softmax(self.m(normalise(x)), 1)


NETWORKS = {"vgg": Vgg, "resnet": ResNet}


# ---- training ------------------------------------------------------------------------------------------------------


def accuracy(network, pictures, labels):
    """In per cent."""
    network.eval()
    right = 0
    with torch.no_grad():
        for x, y in zip(pictures.split(500), labels.split(500)):
            right += (network(normalise(x)).argmax(1) == y).sum().item()
    return 100 * right / len(labels)


def seconds_per_step(network, batch):
    network.train()
    x, y = torch.rand(batch, 1, SIDE, SIDE), torch.zeros(batch).long()
    steps = 20
    for step in range(-5, steps):
        if step == 0:
            start = time.monotonic()
        F.cross_entropy(network(x), y).backward()
    network.zero_grad()
    return (time.monotonic() - start) / steps


def train_epoch(network, optimizer, schedule, data, options):
    """One pass over the pictures in random order, half of them mirrored. Returns the mean loss."""
    pictures, labels = data
    network.train()
    order = torch.randperm(len(pictures))
    losses = []
    for start in range(0, len(pictures) - options.batch + 1, options.batch)[:options.steps]:
        picked = order[start:start + options.batch]
        x = pictures[picked]
        mirrored = torch.rand(options.batch) < 0.5
        x[mirrored] = x[mirrored].flip(3)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(normalise(x)), labels[picked], label_smoothing=0.05)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(name, network, data, test, options):
    steps = min(len(data[0]) // options.batch, options.steps or len(data[0]))
    epochs = options.epochs
    if not epochs:
        fitting = int(60 * options.minutes / (seconds_per_step(network, options.batch) * steps))
        epochs = max(3, min(10, fitting))
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=options.rate, total_steps=epochs * steps, pct_start=0.25)
    start = time.monotonic()
    for epoch in range(epochs):
        loss = train_epoch(network, optimizer, schedule, data, options)
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {loss:.4f}, test {accuracy(network, *test):.2f} %, "
              f"{time.monotonic() - start:.0f} s", flush=True)


def export(name, network, options):
    whole = Whole(network).eval()
    example = torch.zeros(1, 1, SIDE, SIDE)
    names = {"opset_version": OPSET, "input_names": ["input"], "output_names": ["prob"]}
    path = os.path.join(options.out, f"fmnist_{name}.onnx")
    torch.onnx.export(whole, example, path, dynamic_axes={"input": {0: "n"}, "prob": {0: "n"}}, **names)
    print(f"{path}: {os.path.getsize(path)} bytes")
    if options.nofold:
        torch.onnx.export(whole, example, os.path.join(options.out, f"fmnist_{name}_nofold.onnx"),
                          training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, **names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="vgg, resnet (default: both)")
    parser.add_argument("--out", default=".", help="folder for the ONNX files (default: this one)")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist",
                        help="folder of the data set (%(default)s)")
    parser.add_argument("--minutes", type=float, default=7, help="time for each network, 3 to 10 epochs (%(default)s)")
    parser.add_argument("--epochs", type=int, default=0, help="this many epochs, however long they take")
    parser.add_argument("--steps", type=int, default=None, help="stop each epoch early, to try the script out")
    parser.add_argument("--batch", type=int, default=128, help="pictures per step (%(default)s)")
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    parser.add_argument("--nofold", action="store_true",
                        help="also write the networks with BatchNormalization as trained")
    options = parser.parse_args()
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    os.makedirs(options.out, exist_ok=True)
    data, test = load(options.data, "train"), load(options.data, "t10k")
    for name in options.networks or NETWORKS:
        network = NETWORKS[name]()
        train(name, network, data, test, options)
        export(name, network, options)


if __name__ == "__main__":
    main()
