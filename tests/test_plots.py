"""Pictures: they are drawn, they say in words what they show, and they hold what they say."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ftlab import plots
from ftlab.training import Evaluation, History


class Pictures(torch.utils.data.Dataset):
    classes = ("cat", "dog")

    def __len__(self):
        return 5

    def __getitem__(self, position):
        if not 0 <= position < 5:
            raise IndexError
        return Image.new("RGB", (8, 8), (50 * position, 0, 0)), position % 2


@pytest.fixture
def measured():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.45, 0.55]])
    return Evaluation(0.4, torch.tensor([0, 1, 0, 1, 0]), probabilities, ["cat", "dog"])


def drawn(picture):
    image = np.asarray(Image.open(io.BytesIO(picture._repr_png_())).convert("L"))
    assert image.std() > 5  # something is on it
    return image


def texts(picture):
    return [text.get_text() for ax in picture.axes for text in (*ax.texts, ax.title)]


def test_images_with_labels():
    picture = plots.images(Pictures(), [0, 1, 4])
    assert repr(picture) == "3 images: cat; dog; cat"
    assert [title for title in texts(picture) if title] == ["cat", "dog", "cat"]
    drawn(picture)


def test_images_with_predictions_mark_right_and_wrong_by_sign_and_word(measured):
    picture = plots.images(Pictures(), evaluation=measured)
    assert "✓ cat, 90% sure" in repr(picture)
    assert "✗ dog, said cat, 80%" in repr(picture)


def test_a_position_beyond_the_end_is_named():
    with pytest.raises(IndexError, match="position 7 is not in a dataset of 5 images"):
        plots.images(Pictures(), [0, 7])


def test_mistakes_are_shown_surest_first(measured):
    assert repr(plots.mistakes(Pictures(), measured)).startswith("2 images: ✗ dog, said cat, 80%; ✗ cat")


def test_no_mistakes_is_a_picture_too():
    right = Evaluation(0.0, torch.tensor([0]), torch.tensor([[1.0, 0.0]]), ["cat", "dog"])
    assert plots.mistakes(Pictures(), right)._repr_png_()


def test_the_confusion_matrix_shows_its_counts(measured):
    picture = plots.confusion(measured)
    assert sorted(text for text in texts(picture) if text) == ["1", "1", "1", "2"]
    assert "most often cat was taken for dog, 1 times" in repr(picture)
    drawn(picture)


def test_history_and_comparison():
    rows = [
        {"epoch": e, "lr": 1, "train loss": 1 - e / 4, "train accuracy": e / 4, "val accuracy": e / 5}
        for e in (0, 1)
    ]
    assert "train loss 0.750" in repr(plots.history(History(rows)))
    drawn(plots.history(History(rows)))
    drawn(plots.history(History()))
    picture = plots.compare({"one": History(rows), "two": History(rows[:1])})
    assert repr(picture) == "val accuracy at the end: one 0.200, two 0.000"
    drawn(picture)
    drawn(plots.compare({"one": History(rows), "nothing yet": History()}))


def test_probabilities_are_said():
    picture = plots.probabilities(Image.new("RGB", (9, 9)), {"cat": 0.2, "dog": 0.7})
    assert repr(picture) == "cat 20%; dog 70%"
    drawn(picture)


def test_normalised_tensors_and_grey_ones_are_shown():
    drawn(plots.grid([torch.randn(3, 6, 6), torch.rand(1, 6, 6)], ["a", "b"]))


def test_no_pyplot_figure_is_left_open(measured):
    import matplotlib.pyplot as plt

    plots.confusion(measured)
    assert plt.get_fignums() == []
