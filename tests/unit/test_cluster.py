"""A Ray cluster finds what one process does. Ray is an extra: without it, this is skipped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_workers import MASKS, assert_alike, calls, pid, refuse, residual, samples

import onnx_upscale
from onnx_upscale import DataError, UsageError, WorkerError
from onnx_upscale.samples import Share, open_source
from onnx_upscale.storage import Stored
from onnx_upscale.workers import Team, gather
from onnx_upscale.workers.sigterm import TermHandler

ray: Any = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests, as starting one takes seconds."""
    handler = TermHandler()  # Or SIGTERM would end tests that come later in this process.
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    path = os.pathsep.join(sys.path)  # With the kit, which pytest put there.
    ray.init(address="local", num_cpus=2, runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)
    yield
    ray.shutdown()
    handler.set_again()


def team_of(workers: int | None) -> Any:
    data, model, all_of_them = samples(), residual(), np.arange(60)
    opened = open_source(data, model, 60)
    return gather(data, opened, all_of_them, Stored(model), 60, workers, "local")


def leave(share: Share) -> None:
    os._exit(1)


def double(share: Share, item: int) -> int:
    return 2 * item


def test_a_team() -> None:
    team: Team
    with team_of(None) as team:
        assert len({*team.ask(pid), os.getpid()}) == 3
        assert list(team.ask(calls, 2)) == [3, 3]
        assert list(team.spread(double, [1, 2, 3])) == [2, 4, 6]
        with pytest.raises(DataError, match=r"^one clear line$"):
            list(team.ask(refuse))
        with pytest.raises(WorkerError, match="ended before it was done"):
            list(team.ask(leave))


def test_it_recovers_and_prunes_to_the_same() -> None:
    model, data = residual(), samples()
    assert_alike(
        onnx_upscale.recover(model, MASKS, data).model,
        onnx_upscale.recover(model, MASKS, data, ray="local").model,
    )
    goals = [onnx_upscale.pruning.goals.Goal("macs", value) for value in (0.8, 0.6)]
    alone, together = (
        onnx_upscale.prune_all(model, data, goals, runs=2, ray=address)
        for address in (None, "local")
    )
    for mine, theirs in zip(alone, together, strict=True):
        assert mine.masks == theirs.masks
        assert_alike(mine.recovered.model, theirs.recovered.model)


def test_more_workers_than_there_are() -> None:
    with pytest.raises(UsageError, match="`workers` 3: the cluster has 2 CPUs"), team_of(3):
        pass


@pytest.mark.parametrize(
    ("address", "saying"),
    [
        ("127.0.0.1:1", "`ray` 127.0.0.1:1: no cluster answers there: Connection refused"),
        ("nowhere", "`ray` nowhere: give HOST:PORT, ray://HOST:PORT, auto or local"),
        ("ray://h:99999", "give HOST:PORT"),
    ],
)
def test_an_address_that_does_not_answer(
    address: str, saying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match=saying):
        onnx_upscale.recover(residual(), MASKS, samples(9), ray=address)


def test_somebody_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_upscale.workers import cluster

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_LONGER", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match="no Ray cluster: it said nothing for 1 seconds"):
            onnx_upscale.recover(residual(), MASKS, samples(9), ray=address)


INTERRUPTED = """
import os, signal, sys
from onnx_upscale.cli import main
from onnx_upscale.workers.cluster import Cluster
def end(*_):
    os.kill(os.getpid(), signal.SIGTERM)
WHERE.NAME = end
main(["prune", "in.onnx", "out.onnx", "--data", "data.npy", "--macs", "0.8", "--ray", "local"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize(("where", "name"), [("Cluster", "ask"), ("os", "fsync")])
def test_a_signal_on_the_cluster_and_after_it(where: str, name: str, tmp_path: Path) -> None:
    """Ray has handlers of its own, and takes only half of them back; ours must stay in force."""
    onnx.save(residual(), tmp_path / "in.onnx")
    np.save(tmp_path / "data.npy", samples(9))
    before = set(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.replace("WHERE", where).replace("NAME", name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.endswith("onnx-upscale: error: interrupted\n"), done.stderr
    assert done.returncode == 1
    assert set(tmp_path.iterdir()) == before
