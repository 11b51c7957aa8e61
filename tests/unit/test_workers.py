"""Several processes find what one does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Array, Net
from onnx_upscale import DataError, UsageError, WorkerError
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.pruning.second import SecondMoments
from onnx_upscale.samples import Images, Share, batches, divide, open_source, tickets_for
from onnx_upscale.samples.parts import Some
from onnx_upscale.storage import Stored
from onnx_upscale.workers import gather

MASKS = {"version": 1, "masks": {f"w{index}": {"input": [index, 3]} for index in (1, 2)}}


def residual(batch: int | str = "batch") -> onnx.ModelProto:
    net = Net(17, x=[batch, 3, 12, 12])
    tensor = net("Conv", "x", net.constant(net.random(6, 3, 1, 1), "w0"))
    for index in (1, 2):
        weight = net.constant(net.random(6, 6, 3, 3) / 4, f"w{index}")
        made = net("Conv", net("Relu", tensor), weight, pads=[1, 1, 1, 1])
        tensor = net("Add", tensor, made)
    return net.model(net("Conv", net("Relu", tensor), net.random(4, 6, 1, 1)))


def samples(count: int = 60) -> Array:
    return np.random.default_rng(1).standard_normal((count, 3, 12, 12)).astype(np.float32)


def assert_alike(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    values = [{t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (one, other)]
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_parts_are_whole_batches() -> None:
    data = open_source(samples(), residual(), 60)
    indices = np.arange(0, 60, 2)
    parts = divide(data, indices, residual(), 3)
    assert [(len(own), first) for own, first in parts] == [(16, 0), (8, 2), (6, 3)]
    assert np.array_equal(np.concatenate([own for own, _ in parts]), indices)
    assert len(divide(data, indices, residual(), 9)) == 4
    assert [first for _, first in divide(data, indices[:6], residual(4), 2)] == [0, 1]


def test_files_are_opened_by_each_and_all_else_is_read_once(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", samples())
    model, read = residual(), 0

    def stream() -> Iterator[dict[str, Array]]:
        nonlocal read
        for row in samples():
            read += 1
            yield {"x": row[np.newaxis]}

    indices = np.arange(5, 35)
    wanted = list(batches(open_source(samples(), model, 60), indices, model))
    source: Any
    for source, kind in ((tmp_path / "a.npy", str), (samples(), Some), (stream(), Some)):
        opened = open_source(source, model, 60)
        tickets = tickets_for(source, opened, indices, Stored(model), 60, 2)
        assert all(isinstance(ticket.source, kind) for ticket in tickets)
        shares = [ticket.open() for ticket in tickets]
        assert [share.first for share in shares] == [0, 2]
        found = [batch for share in shares for batch in share.batches()]
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(one.inputs["x"], other.inputs["x"])
    assert read == 60


def test_samples_that_changed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, samples())
    opened = open_source(path, residual(), 60)
    (ticket,) = tickets_for(path, opened, np.arange(8), Stored(residual()), 60, 1)
    np.save(path, samples(20))
    with pytest.raises(DataError, match="a worker finds 20 of them, the main process 60"):
        ticket.open()


def test_a_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (12, 12)).save("images/a.png")
    source = Images("images")
    (ticket,) = tickets_for(
        source, open_source(source, residual(), 1), np.arange(1), Stored(residual()), 1, 1
    )
    assert isinstance(ticket.source, Images)
    assert os.path.isabs(ticket.source.folder)


def pid(share: Share) -> int:
    share.held["calls"] = share.held.get("calls", 0) + 1
    return os.getpid()


def calls(share: Share, more: int) -> int:
    return int(share.held["calls"]) + more


def die(share: Share) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nap(share: Share) -> None:
    time.sleep(30)


def lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def refuse(share: Share) -> None:
    raise DataError("one clear line")


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    model, data = residual(), samples()
    np.save(tmp_path / "a.npy", data)
    alone = onnx_upscale.recover(model, MASKS, data)
    together = onnx_upscale.recover(model, MASKS, tmp_path / "a.npy", workers=2)
    assert_alike(alone.model, together.model)
    for mine, theirs in zip(alone.report["readers"], together.report["readers"], strict=True):
        assert theirs["positions"] == mine["positions"]
        assert theirs["error_after"] == pytest.approx(mine["error_after"], rel=1e-3)
    errors = [each.report["outputs"][0]["error_after"] for each in (alone, together)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@pytest.mark.slow
def test_two_processes_choose_what_one_does() -> None:
    one, other = (
        onnx_upscale.prune(residual(), samples(), macs=0.7, runs=2, workers=workers)
        for workers in (1, 2)
    )
    assert one.masks == other.masks
    assert one.masks["masks"]
    assert_alike(one.recovered.model, other.recovered.model)


@pytest.mark.slow
def test_a_team() -> None:
    model, data = residual(), samples()
    opened, graph = open_source(data, model, 60), load(model).graph
    indices = np.arange(60)
    with gather(data, opened, indices, Stored(model), 60, 2) as team:
        assert team is not None
        assert team.size == 2
        pids = list(team.ask(pid))
        assert len({*pids, os.getpid()}) == 3
        assert list(team.ask(pid)) == pids
        assert list(team.ask(calls, 3)) == [5, 5]
        found = list(layers(graph))
        one, other = (
            SecondMoments(graph, found, lambda: batches(opened, indices, model), 0, team=each)
            for each in (None, team)
        )
        for layer in found:
            np.testing.assert_allclose(one(layer), other(layer), rtol=1e-5, atol=1e-6)
        with pytest.raises(DataError, match=r"^one clear line$"):
            list(team.ask(refuse))
        with pytest.raises(WorkerError, match="a worker process ended before it was done"):
            list(team.ask(die))


@pytest.mark.slow
def test_nobody_goes_on_when_the_work_is_broken_off() -> None:
    model, data = residual(), samples()
    pids: list[int] = []
    with (
        pytest.raises(KeyboardInterrupt),
        gather(data, open_source(data, model, 60), np.arange(60), Stored(model), 60, 2) as team,
    ):
        assert team is not None
        pids += team.ask(pid)
        team.ask(nap)
        time.sleep(0.5)
        raise KeyboardInterrupt
    deadline = time.monotonic() + 10
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, pids))


def test_one_worker_needs_no_team() -> None:
    model, data = residual(), samples(9)
    for workers in (None, 1):
        with gather(
            data, open_source(data, model, 9), np.arange(9), Stored(model), 9, workers
        ) as team:
            assert team is None


def test_no_worker_is_too_few() -> None:
    with pytest.raises(UsageError, match="`workers` 0: must be at least 1"):
        onnx_upscale.recover(residual(), MASKS, samples(), workers=0)
