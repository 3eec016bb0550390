"""PyTorch's turn: trains one net of torch.nn and prints a line of JSON.

The only argument is the turn, as the struct of that name in main.go says. A step
is a batch chosen by index from tensors in memory, zero_grad, forward, loss,
backward and Adam. Switches change how PyTorch computes, not what:

fused          Adam as one kernel (torch 2.4 and later)
channels_last  images with their channels last
no_onednn      without oneDNN

With several processes the net is in DistributedDataParallel over gloo; each process
has its share of the batch, and all do the same number of steps in a window.

Subnormal numbers are flushed to zero in any case: gradients that vanish along 200
steps of an LSTM make PyTorch more than ten times slower on CPUs that compute with
subnormals in microcode. And the forget gate's bias begins at 1, as Keras has it.
"""
import json
import sys
import time

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

turn = json.loads(sys.argv[1])
switches = turn.get("switches") or []
world = turn.get("processes") or 1
share = turn["batch"] // world
torch.set_num_threads(turn["threads"])
torch.set_flush_denormal(True)  # before there are other threads: they inherit it
torch.manual_seed(0)
if "no_onednn" in switches:
    torch.backends.mkldnn.set_flags(False)


class LSTM(nn.Module):
    """Embedding, LSTM, and a dense layer of the last step's output."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10000, 128)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.dense = nn.Linear(128, 1)
        with torch.no_grad():
            self.lstm.bias_ih_l0[128:256] = 1

    def forward(self, x):
        _, (h, _) = self.lstm(self.embedding(x))
        return self.dense(h[-1])


def digits(*shape):
    return lambda n: (torch.empty(n, *shape).uniform_(-1, 1), torch.randint(0, 10, (n,)))


NETS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)),
        digits(784),
        F.cross_entropy,
    ),
    "widemlp": (
        lambda: nn.Sequential(
            nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
        ),
        digits(784),
        F.cross_entropy,
    ),
    "mnistcnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 12 * 12, 128), nn.ReLU(), nn.Linear(128, 10),
        ),
        digits(1, 28, 28),
        F.cross_entropy,
    ),
    "lstm": (
        LSTM,
        lambda n: (torch.randint(0, 10000, (n, 200)), torch.randint(0, 2, (n, 1)).float()),
        F.binary_cross_entropy_with_logits,
    ),
    "catsdogs": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128 * 17 * 17, 512), nn.ReLU(), nn.Linear(512, 1),
        ),
        lambda n: (torch.empty(n, 3, 150, 150).uniform_(-1, 1), torch.randint(0, 2, (n, 1)).float()),
        F.binary_cross_entropy_with_logits,
    ),
}

make, samples, loss = NETS[turn["net"]]
begun = time.perf_counter()
X, Y = samples(turn["samples"])
data = time.perf_counter() - begun
net = make()
if "channels_last" in switches:
    net = net.to(memory_format=torch.channels_last)
if world > 1:
    dist.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
options = {"fused": True} if "fused" in switches else {}
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, **options)


def batches():
    """Yields the indices of whole batches, epoch after epoch, each in another order, or
    this process' share of them."""
    first = share * turn.get("rank", 0)
    while True:
        order = torch.randperm(len(X))
        for i in range(0, len(X) - turn["batch"] + 1, turn["batch"]):
            yield order[i + first : i + first + share]


chosen = batches()


def step():
    index = next(chosen)
    x, y = X.index_select(0, index), Y.index_select(0, index)
    if "channels_last" in switches:
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad(set_to_none=True)
    loss(net(x), y).backward()
    optimizer.step()


def window():
    """Trains for a window's time and returns samples per second."""
    begun, n = time.perf_counter(), 0
    while True:
        step()
        n += turn["batch"]
        took = time.perf_counter() - begun
        if took >= turn["seconds"] / turn["windows"]:
            return n / took


def together(steps):
    """Does that many steps with all processes and returns samples per second."""
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    dist.barrier()
    return steps * turn["batch"] / (time.perf_counter() - begun)


def agreed():
    """Returns how many steps fill a window, as rank 0 sees it."""
    rate = together(2)
    steps = torch.tensor([max(1, round(turn["seconds"] / turn["windows"] * rate / turn["batch"]))])
    dist.broadcast(steps, 0)
    return steps.item()


def peak():
    """The most that this process had resident, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


step()
first = time.time()
for _ in range(4):
    step()
wall, cpu = time.perf_counter(), time.process_time()
if world > 1:
    steps = agreed()
    rates = [together(steps) for _ in range(turn["windows"])]
else:
    rates = [window() for _ in range(turn["windows"])]
busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
print(json.dumps(dict(version=torch.__version__, first=first, data=data, rates=rates, busy=busy, peak=peak())))
