"""Two workers together must take the step that one would take with the whole batch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from labelmill.train.loop import average_buffers, train_epoch
from labelmill.train.state import State, start_state
from labelmill.train.team import Team
from train.runs import ALONE, feed_of, job_of, shapes_spec

NUM_WORKERS = 2


def two_worker_spec(folder: Path):
    # Batches of 5 fall into parts of 2 and 3, and this network has no statistics of its own over a batch.
    model = {"architecture": "timm/test_vit", "weights": "scratch", "image_size_px": 32}
    optimize = {"epochs": 1, "batch_size": 5, "learning_rate": 0.1, "warmup_epochs": 0}
    return shapes_spec(folder, num_pictures=40, model=model, optimize=optimize)


def with_plain_steps(state: State) -> State:
    # AdamW would hide a gradient of the wrong size.
    return dataclasses.replace(state, optimizer=torch.optim.SGD(state.network.parameters(), lr=0.1))


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_WORKERS)
    team = Team(rank, NUM_WORKERS, torch.device("cpu"))
    job, training_set = job_of(two_worker_spec(folder))
    state = with_plain_steps(start_state(job, team))
    losses, _ = train_epoch(job, team.join(state.network), state, feed_of(job, training_set, state, rank, 2), team)
    running = torch.nn.BatchNorm2d(3)
    running.running_mean.fill_(float(rank))
    average_buffers(running, team)
    found = {"losses": torch.tensor(losses), "mean": running.running_mean.clone()}
    found |= {name: value.contiguous() for name, value in state.network.state_dict().items()}
    save_file(found, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


class WholeFeed:
    """Both workers' parts of each batch, as one."""

    def __init__(self, *parts) -> None:
        self.parts, self.num_steps, self.batch_size = parts, parts[0].num_steps, parts[0].batch_size

    def training_batches(self, epoch: int):
        for batches in zip(*(part.training_batches(epoch) for part in self.parts), strict=True):
            yield tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))


@pytest.mark.long
def test_two_workers_learn_what_one_learns_from_the_whole_batch(tmp_path: Path):
    job, training_set = job_of(two_worker_spec(tmp_path))
    mp.spawn(work, args=(tmp_path,), nprocs=NUM_WORKERS)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(NUM_WORKERS))
    state = with_plain_steps(start_state(job, ALONE))
    whole = WholeFeed(*(feed_of(job, training_set, state, rank, NUM_WORKERS) for rank in range(NUM_WORKERS)))
    losses, _ = train_epoch(job, state.network, state, whole, ALONE)
    torch.testing.assert_close(first["losses"], torch.tensor(losses), rtol=1e-4, atol=1e-5)
    for name, value in state.network.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), name
    assert first["mean"].tolist() == second["mean"].tolist() == [0.5, 0.5, 0.5]
