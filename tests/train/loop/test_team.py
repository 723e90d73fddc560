"""Two workers together must take the steps that one would take with the whole batches."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from labelmill.model.network import build_network, save_weights
from labelmill.spec import TrainSpec
from labelmill.train.loop.loop import average_buffers, train
from labelmill.train.loop.state import start_state
from labelmill.train.loop.team import Team
from train.runs import ALONE, course_of, feed_of, job_of, shapes_spec

NUM_WORKERS = 2
# AdamW would hide a gradient of the wrong size.
PLAIN = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.0, "nesterov": False}, "learning_rate": 0.05}
BY_TURNS = {"epochs": 4, "accumulate": 2, "freeze": "gradual", "ema_decay": 0.9}
# Networks without statistics over a batch: this transformer, and one whose norms are frozen.
CASES = [("timm/test_vit", {}), ("timm/test_vit", BY_TURNS), ("timm/test_resnet", {"freeze": "backbone"})]


def two_worker_spec(folder: Path, architecture: str, settings: dict[str, object]) -> TrainSpec:
    model = {"architecture": architecture, "weights": str(folder / "start.safetensors"), "image_size_px": 32}
    # Batches of 5 fall into parts of 2 and 3.
    optimize = {"epochs": 1, "batch_size": 5, "warmup_epochs": 0, **PLAIN, **settings}
    return shapes_spec(folder, num_pictures=40, model=model, optimize=optimize)


def work(rank: int, folder: Path, architecture: str, settings: dict[str, object]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=NUM_WORKERS)
    team = Team(rank, NUM_WORKERS, torch.device("cpu"))
    job, training_set = job_of(two_worker_spec(folder, architecture, settings))
    state = start_state(job, team)
    feed = feed_of(job, training_set, state.progress.preprocessing, rank, NUM_WORKERS)
    train(course_of(job, training_set, feed, team), state, lambda state: None)
    running = torch.nn.BatchNorm2d(3)
    running.running_mean.fill_(float(rank))
    average_buffers(running, team)
    last = state.progress.epochs[-1]
    found = {"losses": torch.tensor([last.loss, last.validation_loss]), "mean": running.running_mean.clone()}
    found |= {name: value.contiguous() for name, value in state.answering.state_dict().items()}
    save_file(found, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


class WholeFeed:
    """Both workers' parts of each batch, as one."""

    def __init__(self, *parts) -> None:
        self.parts, self.num_steps, self.batch_size = parts, parts[0].num_steps, parts[0].batch_size
        self.unreadable, self.num_pictures = {}, parts[0].num_pictures

    def training_batches(self, epoch: int, first_step: int):
        for batches in zip(*(part.training_batches(epoch, first_step) for part in self.parts), strict=True):
            yield tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))

    def validation_batches(self):
        yield from chain.from_iterable(part.validation_batches() for part in self.parts)


@pytest.mark.long
@pytest.mark.parametrize(("architecture", "settings"), CASES, ids=["plainly", "by turns", "head alone"])
def test_two_workers_learn_what_one_learns_from_the_whole_batch(
    tmp_path: Path, architecture: str, settings: dict[str, object]
):
    network = build_network(architecture, 3, image_size_px=32)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1)
    save_weights(network, tmp_path / "start.safetensors")
    job, training_set = job_of(two_worker_spec(tmp_path, architecture, settings))
    mp.spawn(work, args=(tmp_path, architecture, settings), nprocs=NUM_WORKERS)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(NUM_WORKERS))
    state = start_state(job, ALONE)
    preprocessing = state.progress.preprocessing
    feeds = [feed_of(job, training_set, preprocessing, rank, NUM_WORKERS) for rank in range(NUM_WORKERS)]
    train(course_of(job, training_set, WholeFeed(*feeds)), state, lambda state: None)
    last = state.progress.epochs[-1]
    torch.testing.assert_close(first["losses"], torch.tensor([last.loss, last.validation_loss]), rtol=1e-4, atol=1e-5)
    for name, value in state.answering.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), name
    assert first["mean"].tolist() == second["mean"].tolist() == [0.5, 0.5, 0.5]
