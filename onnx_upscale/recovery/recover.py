"""recover: new weights for all readers, one level after the other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_upscale.arguments import check_seed
from onnx_upscale.blame import blaming_the_model
from onnx_upscale.choices import RECOVERED, STRENGTH
from onnx_upscale.emitted import Emitted
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.optimizer.load import MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.graph import Use
from onnx_upscale.optimizer.load.model import read_files
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.recovery.fidelity import Fidelity, compare_outputs
from onnx_upscale.recovery.fit import Fit
from onnx_upscale.recovery.levels import Levels, begin, moments_of_all
from onnx_upscale.recovery.readers import explained
from onnx_upscale.recovery.repair import Repair
from onnx_upscale.recovery.report import Compared, RecoverReport, Refitted, Used
from onnx_upscale.recovery.weights import check_masks, check_weights
from onnx_upscale.report import VERSION
from onnx_upscale.samples import Samples, SampleSource, Share, batches, open_source, split
from onnx_upscale.workers import Team, gather

Progress = Callable[[int, int], None]
"""Called with how much is done, of how much."""


@dataclass(frozen=True)
class Recovered(Emitted):
    """A model whose readers were repaired, with the shapes of the original.

    Attributes:
        report: What was done; it also reads like the dictionary of the report file.
        warnings: What could not be done.
    """

    report: RecoverReport
    warnings: tuple[str, ...]


@blaming_the_model
def recover(
    model: ModelSource,
    masks: MaskSource,
    samples: SampleSource,
    *,
    count: int = RECOVERED,
    strength: float = STRENGTH,
    seed: int = 0,
    workers: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """Gives the readers of a pruned model new weights, so that it computes what it did before.

    Args:
        model: A path or a `ModelProto`, which is not changed.
        masks: A path or a dictionary: what is pruned.
        samples: Inputs of the model, without labels: a path to an .npz or .npy file or a folder of
            images, `MODULE:FUNCTION`, arrays, `Images`, an iterable of dictionaries from input name
            to array, or an object with `get_next()`.
        count: How many samples to use at most; a fifth of them is held out.
        strength: How much weights are pulled to what they were, as a share of the mean square of
            what their reader reads.
        seed: Which samples are used, and which positions of them.
        workers: Over how many processes the samples are divided. They are started afresh: a script
            that uses them must keep what it does under `if __name__ == "__main__"`.
        ray: The address of a Ray cluster to divide the samples over, one worker per CPU unless
            `workers` says otherwise: `HOST:PORT`, `auto`, or `local` to start one here.
        progress: Called now and then with how much is done, of how much.

    Returns:
        A model of the same shapes, with zeros where the masks want them, and how well it does.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    if count < 1:
        raise UsageError(f"`count` {count}: must be at least 1")
    if not 0 <= strength < float("inf"):
        raise UsageError(f"`strength` {strength}: must be 0 or more")
    check_seed(seed)
    read = read_files(model, mapped=True)
    opened = open_source(samples, read.model, count)
    fitting, _ = split(opened.count, count, seed)
    with gather(samples, opened, fitting, read, count, workers, ray) as team:
        return repair_model(read, masks, opened, team, count, strength, seed, progress)


def repair_model(
    model: ModelSource,
    masks: MaskSource,
    samples: Samples,
    team: Team | None,
    count: int,
    strength: float,
    seed: int,
    progress: Progress | None = None,
) -> Recovered:
    """Does what `recover` does, on samples that were opened and with a team that was gathered.

    Args:
        model: As for `recover`.
        masks: As for `recover`.
        samples: The samples.
        team: Holds those that are fitted on; None if this process does all by itself.
        count: As for `recover`.
        strength: As for `recover`.
        seed: As for `recover`.
        progress: As for `recover`.

    Returns:
        As `recover`.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    started = time.monotonic()
    loaded = load(model, masks, mapped=True)
    graph = loaded.graph
    check_weights(graph)
    check_masks(loaded)
    fitting, held_out = split(samples.count, count, seed)
    rows, done = list[Refitted](), 0

    def tell(present: int) -> None:
        nonlocal done
        done += present
        if progress is not None:
            progress(done, len(levels) * len(fitting))

    given = functools.partial(batches, samples, fitting, graph.model)
    with Levels(graph, given, seed, strength) as levels:
        repaired, left = levels.repaired, levels.found.left
        masked = onnx.ModelProto()
        masked.CopyFrom(repaired.model)
        try:
            if team is not None:
                list(team.ask(begin, loaded.stated, seed, strength))
            written: dict[Use, Array] = {}
            for number in range(len(levels)):
                if team is None:
                    fits = levels.seen(number, tell)
                else:
                    fits = levels.fits(number)
                    for fit, moments in zip(
                        fits, moments_of_all(team, number, written), strict=True
                    ):
                        fit.moments = moments
                    tell(len(fitting))
                rows += [_refitted(fit, fit.finish(repaired, strength)) for fit in fits]
                written = levels.written(number)
            compared = compare_outputs(
                graph.model, [masked, repaired.model], batches(samples, held_out, graph.model)
            )
        except VerifySetupError as error:
            raise DataError(f"the model does not run on the samples: {error}") from None
    report = RecoverReport(
        VERSION,
        Used(len(fitting), len(held_out)),
        strength,
        seed,
        tuple(rows),
        tuple(_compared(*compared)),
        round(time.monotonic() - started, 3),
    )
    return Recovered(repaired.model, report, tuple(explained(left)), sources=loaded.files)


def repair_share(share: Share, how: tuple[Mapping[str, Any], int, float, int]) -> Recovered:
    """Repairs a model with some masks on all samples of a share, by itself.

    Args:
        share: Holds all samples.
        how: Masks in the form of a mask file, `count`, `strength` and `seed` as for `recover`.
    """
    masks, count, strength, seed = how
    return repair_model(share.model, dict(masks), share.samples, None, count, strength, seed)


def _refitted(fit: Fit, done: Repair | None) -> Refitted:
    reader, moments = fit.reader, fit.moments
    before = after = 0.0
    if done is not None and moments is not None:
        rows = np.repeat(reader.rows, moments.power.size // len(reader.rows))
        power = moments.power.ravel()[rows].sum()
        if power:
            before, after = (
                float(each.ravel()[rows].sum() / power) for each in (done.before, done.after)
            )
    return Refitted(
        reader.layer.node.title,
        reader.layer.inputs,
        int(np.count_nonzero(reader.kept)),
        moments.count if moments is not None else 0,
        before,
        after,
    )


def _compared(
    masked: Mapping[str, Fidelity], repaired: Mapping[str, Fidelity]
) -> Iterator[Compared]:
    for name, after in repaired.items():
        before = masked[name]
        yield Compared(name, before.error, after.error, before.agreement, after.agreement)
