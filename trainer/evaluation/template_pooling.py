"""From the images of a template to its one embedding, as the field evaluates IJB-B and IJB-C.

With e_i = f(x_i) + f(flip x_i), not normalised, s_i the face detector's score of the image, and media (a still, or all
frames of one video) M of template T:

    embedding of T = u / |u|,   u = sum_M mean_{i in M} s_i e_i

Norms stay in, because blurred and covered faces have short embeddings: they and the detector's doubts weigh less
(arcface_torch's eval_ijbc.py with its usual switches N1, D1, F2; the average per medium is Crosswhite et al.,
Template adaptation for face verification and identification, FG 2017, and Whitelam et al., IJB-B, CVPRW 2017).

M images, N templates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TemplateImages:
    """Which images make which template, and how much each counts.

    ids: [N] template numbers, ascending.  starts: [N + 1]; template row r has the places starts[r] to starts[r + 1].
    images: [M] positions in the image source, by place.  rows: [M] row of each place.
    weights: [M] float64, s_i / (images of its medium in this template).
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    images: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of template numbers; -1 where there is no such template."""
        places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1)


def template_images(
    templates: NDArray[np.int64], media: NDArray[np.int64], scores: NDArray[np.float64]
) -> TemplateImages:
    """From the template, medium and detector score of each image [M], in the order of the image source."""
    order = np.lexsort((media, templates))
    ids, starts = np.unique(templates[order], return_index=True)
    new = np.append(True, (np.diff(templates[order]) != 0) | (np.diff(media[order]) != 0))
    group = np.cumsum(new) - 1
    size = np.bincount(group)[group]
    starts = np.append(starts, len(templates)).astype(np.int64)
    rows = np.repeat(np.arange(len(ids)), np.diff(starts))
    return TemplateImages(ids, starts, order.astype(np.int64), rows, scores[order] / size)


def choose_templates(all_templates: TemplateImages, ids: NDArray[np.int64]) -> TemplateImages:
    """Those of ``all_templates`` whose numbers are in ``ids``: what a protocol does not ask for is not embedded."""
    kept = np.isin(all_templates.ids, ids)
    places = kept[all_templates.rows]
    starts = np.append(0, np.cumsum(np.diff(all_templates.starts)[kept])).astype(np.int64)
    rows = np.repeat(np.arange(int(kept.sum())), np.diff(starts))
    return TemplateImages(
        all_templates.ids[kept], starts, all_templates.images[places], rows, all_templates.weights[places]
    )
