"""Masks from a criterion: find the sites, score their channels, prune the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_upscale.criteria.choose import choose, coupled_units, separate_units
from onnx_upscale.criteria.ranks import Progress
from onnx_upscale.criteria.scores import Scores
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.criteria.table import CRITERIA, Subject
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.masks import SIDES, document
from onnx_upscale.optimizer.load.model import ModelSource, read_model
from onnx_upscale.samples import DataSource

SCOPES = ("local", "global")


def mask(
    model: ModelSource,
    criterion: str,
    amount: float,
    *,
    side: str = "input",
    scope: str = "local",
    constrained: bool = False,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    data: DataSource | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Chooses the channels that matter least to a criterion.

    Args:
        model: A path or a `ModelProto`.
        criterion: `l1`, `l2`, `lamp`, `fpgm`, `hrank`, `bn` or `random`.
        amount: The share of channels to prune, from 0 to 1.
        side: `input` or `output` side of the layers.
        scope: `local` prunes `int(amount * channels)` of each layer, `global` that share of all
            channels, wherever they are.
        constrained: Whether layers whose channels are coupled share one decision.
        layers: Patterns (`*`, `?`, `[...]`) of the layers to prune, by weight, node or output;
            none for all. Grouped layers are left alone in any case; those that read a graph input
            (or make a graph output, on the output side) unless they are named exactly.
        skip: Patterns of layers to leave alone.
        data: Calibration data for `hrank`: a path to an .npz or .npy file or a folder of images,
            arrays by input name, an array, or `Images`.
        batch_size: How many samples of it to run at once at most.
        seed: Seed of `random`.
        progress: Called now and then with how much is done, of how much.

    Returns:
        Masks, in the form of a mask file, with every layer that was considered.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    _check("criterion", criterion, CRITERIA)
    _check("side", side, SIDES)
    _check("scope", scope, SCOPES)
    if not 0 <= amount <= 1:
        raise UsageError(f"`amount` {amount}: must be from 0 to 1")
    if batch_size < 1:
        raise UsageError(f"`batch_size` {batch_size}: must be at least 1")
    structure = find_structure(build_graph(read_model(model)))
    sites = find_sites(structure, side, layers, skip)
    chosen = CRITERIA[criterion]
    scores = chosen.score(Subject(structure, sites, data, batch_size, seed, progress))
    if not chosen.comparable:
        scores = [_by_mean(each) for each in scores]
    units = coupled_units(structure, sites) if constrained else separate_units(sites)
    pruned = choose(units, scores, amount, scope)
    return document(
        {site.key: {side: channels.tolist()} for site, channels in zip(sites, pruned, strict=True)}
    )


def _by_mean(scores: Scores) -> Scores:
    mean = scores.mean() if scores.size else 0.0
    scaled: Scores = scores / mean if mean > 0 and np.isfinite(mean) else scores
    return scaled


def _check(what: str, value: str, known: Sequence[str] | Any) -> None:
    if value not in known:
        raise UsageError(f"unknown {what} '{value}' (known: {', '.join(known)})")
