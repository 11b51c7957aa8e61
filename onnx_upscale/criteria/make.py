"""Masks from a criterion: find the sites, score their channels, prune the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_upscale.criteria.choose import choose, coupled_units, separate_units
from onnx_upscale.criteria.scores import Scores
from onnx_upscale.criteria.sites import Site
from onnx_upscale.criteria.table import CRITERIA, Subject
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.masking import LayerMask


@dataclass(frozen=True)
class Scored:
    """Channels with their scores, of which masks of any amount are made.

    Attributes:
        structure: The structure of the model.
        sites: The sides of layers that are pruned.
        scores: Per site, one score per channel.
        scope: `local` prunes that share of each layer, `global` of all channels together.
    """

    structure: Structure
    sites: Sequence[Site]
    scores: Sequence[Scores]
    scope: str

    def masks(self, amount: float, constrained: bool) -> tuple[LayerMask, ...]:
        """Prunes the channels with the lowest scores.

        Args:
            amount: The share to prune, from 0 to 1.
            constrained: Whether layers whose channels are coupled share one decision.

        Returns:
            A mask per site.

        Raises:
            UsageError: All channels must stay.
        """
        units = (
            coupled_units(self.structure, self.sites) if constrained else separate_units(self.sites)
        )
        pruned = choose(units, self.scores, amount, self.scope)
        return tuple(
            LayerMask(site.layer, site.side, channels)
            for site, channels in zip(self.sites, pruned, strict=True)
        )


def score(criterion: str, subject: Subject, scope: str) -> Scored:
    """Scores the channels of some sites.

    Args:
        criterion: A name in `CRITERIA`.
        subject: What the criterion looks at.
        scope: One of `SCOPES`.

    Returns:
        The scores, such that those of different layers can be compared.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    chosen = CRITERIA[criterion]
    scores = chosen.score(subject)
    if not chosen.comparable:
        scores = [_by_mean(each) for each in scores]
    return Scored(subject.structure, subject.sites, scores, scope)


def _by_mean(scores: Scores) -> Scores:
    mean = scores.mean() if scores.size else 0.0
    scaled: Scores = scores / mean if mean > 0 and np.isfinite(mean) else scores
    return scaled
