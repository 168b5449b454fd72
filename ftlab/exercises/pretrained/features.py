"""Which images look alike to a network: a search in its features."""

import torch
from torch import Tensor

from ftlab.exercises.core import Mistake, Wrong, exercise


def check_most_alike(answer):
    """The most alike image of each of twelve, among features of very different length, by direction."""
    features = torch.randn(12, 6) * torch.logspace(-1, 1, 12)[torch.randperm(12), None]
    before = features.clone()
    given = answer(features)
    if not torch.equal(features, before):
        raise Wrong("The features that were handed over are changed.", ask="Which line writes into them?")
    if not isinstance(given, Tensor) or given.shape != (12,):
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise Wrong(
            f"What came back has the shape {shape}, not one number per image.", ask="Over what is the maximum?"
        )
    unit = torch.nn.functional.normalize(features, dim=1)
    alike = unit @ unit.T
    own = given == torch.arange(12)
    if own.any():
        text = f"{own.sum()} of 12 images were found to be most alike to themselves."
        raise Wrong(text, ask="How alike is an image to itself, and how can it be left out?")
    wanted = alike.fill_diagonal_(-2).argmax(1)
    if torch.equal(given.long(), wanted):
        return
    if torch.equal(given.long(), alike.fill_diagonal_(2).argmin(1)):
        raise Wrong("These are the least alike images.", ask="Is a large cosine near or far?")
    products = (features @ features.T).fill_diagonal_(float("-inf"))
    if torch.equal(given.long(), products.argmax(1)):
        text = (
            f"Only {len(given.unique())} different images were found, again and again: those with long features."
        )
        raise Wrong(text, ask="What does the length of a feature vector do to its product with another one?")
    text = f"{(given != wanted).sum()} of 12 are not those with the most similar direction."
    raise Wrong(text, ask="Along which dimension is each image's vector made one long?")


def _by_cosine_similarity(features):
    alike = torch.cosine_similarity(features[:, None], features[None], dim=2)
    alike[range(len(features)), range(len(features))] = -2
    return alike.max(1).indices


def _by_second_best(features):
    unit = features / features.norm(dim=1, keepdim=True)
    return (unit @ unit.T).topk(2, dim=1).indices[:, 1]


def _itself(features):
    unit = torch.nn.functional.normalize(features, dim=1)
    return (unit @ unit.T).argmax(1)


def _without_length(features):
    alike = features @ features.T
    alike.fill_diagonal_(float("-inf"))
    return alike.argmax(1)


def _the_least(features):
    unit = torch.nn.functional.normalize(features, dim=1)
    return (unit @ unit.T).argmin(1)


def _along_the_images(features):
    unit = torch.nn.functional.normalize(features, dim=0)
    return (unit @ unit.T).fill_diagonal_(-99).argmax(1)


def _in_place(features):
    features /= features.norm(dim=1, keepdim=True)
    return (features @ features.T).fill_diagonal_(-2).argmax(1)


def _one_for_all(features):
    unit = torch.nn.functional.normalize(features, dim=1)
    return (unit @ unit.T).fill_diagonal_(-2).argmax()


@exercise(
    check=check_most_alike,
    hints=[
        "The cosine of two vectors is their product, once each of them is one long.",
        "`nn.functional.normalize(features, dim=1)` makes each row one long; `unit @ unit.T` is all pairs.",
        "An image is most alike to itself: put something small into the diagonal before `argmax(1)`.",
    ],
    also_right=[_by_cosine_similarity, _by_second_best],
    mistakes=[
        Mistake(_itself, says="most alike to themselves"),
        Mistake(_without_length, says="those with long features"),
        Mistake(_the_least, says="least alike"),
        Mistake(_along_the_images, says="not those with the most similar direction"),
        Mistake(_in_place, says="are changed"),
        Mistake(_one_for_all, says="has the shape ()"),
    ],
    remember="Features are directions: compare their angle, not their length.",
)
def most_alike(features: torch.Tensor) -> torch.Tensor:
    """Return for each image the number of the *other* image that is most alike: that with the largest cosine.

    `features` is (N, C), one row per image. The result is (N,), positions from 0.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    alike = unit @ unit.T
    alike.fill_diagonal_(-2)
    return alike.argmax(1)
