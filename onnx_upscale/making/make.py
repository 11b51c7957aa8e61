"""Masks for a model: score, choose, and say what they are worth."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnx_upscale.arguments import check_known, check_seed, several
from onnx_upscale.blame import blaming_the_model
from onnx_upscale.choices import CRITERIA, SCOPES, SIDES
from onnx_upscale.criteria import MOST_SAMPLES, Subject, find_sites, score
from onnx_upscale.criteria.sites import Sites
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.making import warnings
from onnx_upscale.making.predict import Prediction
from onnx_upscale.making.reconstruction import Reconstruction
from onnx_upscale.optimizer.analyze import Structure, find_structure
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.keys import united
from onnx_upscale.optimizer.load.masking import LayerMask, mask_graph
from onnx_upscale.optimizer.load.model import ModelSource, read_files
from onnx_upscale.prices import load_prices
from onnx_upscale.recovery.fidelity import Fidelity, compare_outputs
from onnx_upscale.recovery.model import Repaired
from onnx_upscale.samples import Samples, SampleSource, batches, open_source, split

Progress = Callable[[int, int], None]
"""Called with how much is done, of how much."""

RECONSTRUCTION = "reconstruction"

_COMPARED = 64  # Samples on which the masked model is compared with the original.


class Masks(dict[str, Any]):
    """Masks in the form of a mask file, and what to say of them.

    Attributes:
        left: What layers are called that were left alone although nobody asked for it, by reason.
        share: The predicted latency with these masks, as a share of the unpruned model's.
        fidelity: By output, how near the masked model is to the original; empty without data.
        compared: On how many samples.
        warnings: What to mind.
    """

    left: Mapping[str, tuple[str, ...]]
    share: float
    fidelity: Mapping[str, Fidelity]
    compared: int
    warnings: tuple[str, ...]


@blaming_the_model
def mask(
    model: ModelSource,
    criterion: str,
    amount: float | None = None,
    *,
    budget: float | None = None,
    side: str = "input",
    scope: str = "local",
    constrained: bool = False,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    data: SampleSource | None = None,
    batch_size: int = 8,
    seed: int = 0,
    target: str | os.PathLike[str] = "cpu",
    progress: Progress | None = None,
) -> Masks:
    """Chooses the channels that matter least to a criterion.

    Args:
        model: A path or a `ModelProto`.
        criterion: `l1`, `l2`, `lamp`, `fpgm`, `hrank`, `bn`, `random` or `reconstruction`.
        amount: The share of channels to prune, from 0 to 1.
        budget: In its place, the predicted latency to meet, as a share of the unpruned model's:
            the smallest amount that does, or with `reconstruction` what `prune` chooses.
        side: `input` or `output` side of the layers.
        scope: `local` prunes `int(amount * channels)` of each layer, `global` that share of all
            channels, wherever they are.
        constrained: Whether layers whose channels are coupled share one decision.
        layers: Patterns (`*`, `?`, `[...]`) of the layers to prune, by weight, node, output, torch
            parameter or module; none for all. Grouped layers are left alone in any case; those
            whose weight is arithmetic, and those that read a graph input (or make a graph output,
            on the output side), unless they are named exactly; those right before an output unless
            a pattern matches.
        skip: Patterns of layers to leave alone.
        data: Samples of the model's inputs, as `recover` takes them: for `hrank` and
            `reconstruction`, and to compare the masked model with the original.
        batch_size: How many samples `hrank` runs at once at most.
        seed: Seed of `random`, and of which samples are used.
        target: Whose costs latency is predicted by.
        progress: Called now and then with how much is done, of how much.

    Returns:
        Masks, in the form of a mask file, with every layer that was considered.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    check_known("criterion", criterion, CRITERIA)
    check_known("side", side, SIDES)
    check_known("scope", scope, SCOPES)
    if (amount is None) == (budget is None):
        raise UsageError("give either `amount`, the share of channels to prune, or `budget`")
    if budget is not None and not 0 < budget < 1:
        raise UsageError(f"`budget` {budget}: must be a share between 0 and 1, such as 0.7")
    amount = amount or 0.0
    if not 0 <= amount <= 1:
        raise UsageError(f"`amount` {amount}: must be from 0 to 1")
    if batch_size < 1:
        raise UsageError(f"`batch_size` {batch_size}: must be at least 1")
    check_seed(seed)
    layers, skip = several(layers), several(skip)
    rebuilt = criterion == RECONSTRUCTION
    if rebuilt:
        _check_rebuilt(side, scope, data)
    prices = load_prices(target)
    structure = find_structure(build_graph(read_files(model, mapped=True).model)).with_whole_heads
    sites = find_sites(structure, side, layers, skip, repaired=rebuilt)
    samples = data if data is None else open_source(data, structure.graph.model, MOST_SAMPLES)
    prediction = Prediction(structure, prices)
    together: Callable[[], Sequence[LayerMask]] | None = None
    if rebuilt:
        assert samples is not None
        curves = Reconstruction(
            structure, sites.chosen, samples, MOST_SAMPLES, seed, constrained, progress
        )
        masks = curves.masks(amount) if budget is None else curves.within(budget, prices)
    else:
        subject = Subject(
            structure, sites.chosen, samples, batch_size, seed, _half(progress, 0, budget)
        )
        scored = score(criterion, subject, scope)
        if budget is not None:
            amount = prediction.meeting(
                budget,
                lambda share: scored.masks(share, constrained),
                _half(progress, 50, budget),
            )
        masks = scored.masks(amount, constrained)
        if not constrained:
            together = functools.partial(scored.masks, amount, True)
    return _made(structure, sites, masks, prediction, together, samples, seed)


def _half(progress: Progress | None, start: int, budget: float | None) -> Progress:
    """Progress of one of two steps, in percent; of the only one where there is no budget."""

    def tell(done: int, of: int) -> None:
        if progress is not None and budget is None:
            progress(done, of)
        elif progress is not None:
            progress(start + 50 * done // max(of, 1), 100)

    return tell


def _made(
    structure: Structure,
    sites: Sites,
    masks: Sequence[LayerMask],
    prediction: Prediction,
    together: Callable[[], Sequence[LayerMask]] | None,
    samples: Samples | None,
    seed: int,
) -> Masks:
    graph = structure.graph
    made = Masks(united(graph, masks))
    made.left, made.share = sites.left, prediction.share(masks)
    made.fidelity, made.compared = {}, 0
    told = list(warnings.nothing_pruned(masks))
    if not told and together is not None:
        told += warnings.faster_together(prediction, made.share, together)
    if samples is not None:
        made.fidelity, made.compared = _compared(structure, masks, samples, seed)
        told += warnings.far(made.fidelity, made.compared)
    made.warnings = (*format_warnings(graph.model.graph.node), *told)
    return made


def _compared(
    structure: Structure, masks: Sequence[LayerMask], samples: Samples, seed: int
) -> tuple[Mapping[str, Fidelity], int]:
    """How near the masked model is to the original, and on how many samples."""
    graph = mask_graph(structure.graph, masks)
    fitting, held_out = split(samples.count, _COMPARED, seed)
    used = np.union1d(fitting, held_out)
    try:
        (found,) = compare_outputs(
            graph.model, [Repaired(graph, ()).model], batches(samples, used, graph.model)
        )
    except VerifySetupError as error:
        raise DataError(f"the model does not run on the samples: {error}") from None
    return found, len(used)


def _check_rebuilt(side: str, scope: str, data: SampleSource | None) -> None:
    if side != "input":
        raise UsageError("`side` output: criterion reconstruction is for what layers read")
    if scope != "local":
        raise UsageError("`scope` global: criterion reconstruction has `budget` for that")
    if data is None:
        raise UsageError(
            "criterion reconstruction fits weights to samples: give some with `data` (an .npz or "
            ".npy file, a folder of images, or MODULE:FUNCTION)"
        )
