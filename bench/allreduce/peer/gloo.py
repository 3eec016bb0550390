"""Gloo's turn, one rank of it: all-reduces float32 vectors and prints a line of JSON
for each size.

Arguments: sizes in bytes, separated by commas, and seconds for each. RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT are as torch.distributed wants them. Times are those of
rank 0, which also adds up the CPU time of all.
"""
import json
import sys
import time

import torch
import torch.distributed as dist

LEAST, MOST = 5, 5000

sizes, seconds = [int(s) for s in sys.argv[1].split(",")], float(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo")


def largest(x):
    """Returns the greatest of all ranks' x."""
    t = torch.tensor([x], dtype=torch.float64)
    dist.all_reduce(t, op=dist.ReduceOp.MAX)
    return t.item()


for size in sizes:
    vector = torch.zeros(size // 4)  # 0 stays 0, however often it is added up

    def op():
        begun = time.perf_counter()
        dist.all_reduce(vector)
        return time.perf_counter() - begun

    op(), op()
    took = largest(sorted(op() for _ in range(3))[1])
    ops = min(max(LEAST, int(seconds / took)), MOST)
    dist.barrier()
    cpu = time.process_time()
    times = [op() for _ in range(ops)]
    used = torch.tensor([time.process_time() - cpu], dtype=torch.float64)
    dist.all_reduce(used)
    if dist.get_rank() == 0:
        print(json.dumps(dict(bytes=size, times=times, cpu=used.item(), version=torch.__version__)), flush=True)
    del vector
dist.barrier()
dist.destroy_process_group()
