"""More answers to the exercises of pretrained: wrong ones that beginners give, and right ones of other styles."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.models import get_model

from ftlab.exercises import pretrained
from ftlab.pretrained import asked_weights
from ftlab.surgery import replace_head
from tests.answers import Answers, is_wrong, passes

answers = Answers()
right, wrong = answers.right, answers.wrong
LITE0 = "efficientnet_lite0"

# --- what_is_loaded


@right(pretrained.what_is_loaded)
def by_asking():
    calls = {
        "a": lambda: models.resnet50(),
        "b": lambda: models.resnet50(weights=None),
        "c": lambda: models.resnet50(weights="DEFAULT"),
        "f": lambda: models.resnet50(weights="IMAGENET1K_V2", num_classes=4),
    }
    said = {"d": "V1", "e": "error"}
    for letter, call in calls.items():
        try:
            entry = asked_weights(call)
            said[letter] = entry.name.rpartition("_")[2] if entry else "random"
        except ValueError:
            said[letter] = "error"
    return said


@wrong(pretrained.what_is_loaded, "is none of the four words")
def whole_names():
    return {**by_asking(), "c": "IMAGENET1K_V2"}


@wrong(pretrained.what_is_loaded, "Not a dictionary with the keys a to f")
def capital_letters():
    return {letter.upper(): word for letter, word in by_asking().items()}


@wrong(pretrained.what_is_loaded, "Not a dictionary with the keys a to f")
def only_the_words():
    return ["random", "random", "V2", "V1", "error", "error"]


# --- classifier_for


@right(pretrained.classifier_for)
def with_replace_head(num_classes):
    model = get_model(LITE0, weights="IMAGENET1K_V1")
    replace_head(model, num_classes)
    return model


@right(pretrained.classifier_for)
def a_whole_new_classifier(num_classes):
    model = get_model(LITE0, weights="DEFAULT")
    model.classifier = nn.Linear(1280, num_classes)
    return model


@right(pretrained.classifier_for)
def frozen_as_well(num_classes):
    model = get_model(LITE0, weights="DEFAULT").requires_grad_(False)
    model.classifier[-1] = nn.Linear(1280, num_classes)
    return model.eval()


@wrong(pretrained.classifier_for, "With `num_classes=3`, the scores of two images have shape (2, 8)")
def always_eight(num_classes):
    return with_replace_head(8)


@wrong(pretrained.classifier_for, "mat1 and mat2")
def the_width_of_a_resnet(num_classes):
    model = get_model(LITE0, weights="DEFAULT")
    model.classifier[1] = nn.Linear(512, num_classes)
    return model


@wrong(pretrained.classifier_for, "have shape (2, 1000)")
def another_label(num_classes):
    model = get_model(LITE0, weights="DEFAULT")
    model.classifier[1].out_features = num_classes
    return model


@wrong(pretrained.classifier_for, "of type `ResNet`, not the network")
def another_network(num_classes):
    return get_model("resnet18", num_classes=num_classes)


@wrong(pretrained.classifier_for, "It gave back `None`")
def without_return(num_classes):
    with_replace_head(num_classes)


@wrong(pretrained.classifier_for, "of type `Linear`, not the network")
def the_head_alone(num_classes):
    model = get_model(LITE0, weights="DEFAULT")
    model.classifier[1] = nn.Linear(1280, num_classes)
    return model.classifier[1]


# --- continue_from


@right(pretrained.continue_from)
def with_the_old_head_in_a_copy(model, path):
    model.load_state_dict(torch.load(path))
    new = copy.deepcopy(model)
    replace_head(new, 4)
    return new


@right(pretrained.continue_from)
def from_bytes(model, path):
    model.load_state_dict(torch.load(io.BytesIO(Path(path).read_bytes()), weights_only=True))
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(model.fc.in_features, 4))
    return model


@wrong(pretrained.continue_from, "Expected state_dict to be dict-like")
def the_path_itself(model, path):
    model.load_state_dict(path)
    model.fc = nn.Linear(model.fc.in_features, 4)
    return model


@wrong(pretrained.continue_from, "of type `OrderedDict`, not the model")
def the_file_is_no_model(model, path):
    return torch.load(path, weights_only=True)


@wrong(pretrained.continue_from, "are not those of the file")
def all_layers_new(model, path):
    model.load_state_dict(torch.load(path, weights_only=True))
    return type(model)(num_classes=4)


@wrong(pretrained.continue_from, "not those of four classes")
def five_classes(model, path):
    model.load_state_dict(torch.load(path, weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, 5)
    return model


# --- from_opencv


@right(pretrained.from_opencv)
def by_a_list_of_channels(picture, prepare):
    return prepare(torch.from_numpy(picture[:, :, [2, 1, 0]]).permute(2, 0, 1)).unsqueeze(0)


@right(pretrained.from_opencv)
def by_numpy(picture, prepare):
    rgb = np.ascontiguousarray(np.transpose(picture, (2, 0, 1))[::-1])
    return prepare(torch.from_numpy(rgb))[None, ...]


@wrong(pretrained.from_opencv, "negative")
def negative_strides(picture, prepare):
    return prepare(torch.from_numpy(picture[:, :, ::-1]).permute(2, 0, 1))[None]


@wrong(pretrained.from_opencv, "of type `ndarray`, not a tensor")
def back_to_numpy(picture, prepare):
    return prepare(Image.fromarray(picture[..., ::-1].copy())).numpy()[None]


@wrong(pretrained.from_opencv, "with red and blue exchanged")
def as_it_came(picture, prepare):
    return prepare(Image.fromarray(picture))[None]


@wrong(pretrained.from_opencv, "for a batch of one image of")
def the_batch_before_the_preparing_and_after(picture, prepare):
    return prepare(torch.from_numpy(picture).permute(2, 0, 1).flip(0)[None])[None]


# --- top_names


@right(pretrained.top_names)
def sorted_by_hand(model, image, categories):
    model.train(False)
    scores = model(torch.stack([image]))[0].detach().numpy()
    return tuple(categories[place] for place in np.argsort(-scores)[:3])


@right(pretrained.top_names)
def by_a_dictionary(model, image, categories):
    scores = dict(zip(categories, model.eval()(image.unsqueeze(0)).flatten().tolist(), strict=True))
    return sorted(scores, key=scores.get, reverse=True)[:3]


@wrong(pretrained.top_names, "The same image twice, and two answers")
def a_tuple_in_train_mode(model, image, categories):
    return tuple(categories[place] for place in model(image[None])[0].topk(3).indices)


@wrong(pretrained.top_names, "You gave a tensor")
def their_numbers(model, image, categories):
    return model.eval()(image[None])[0].topk(3).indices


@wrong(pretrained.top_names, "Not three names")
def with_their_probabilities(model, image, categories):
    best = model.eval()(image[None]).softmax(1)[0].topk(3)
    return {categories[place]: float(p) for p, place in zip(*best, strict=True)}


@wrong(pretrained.top_names, "their order is not")
def in_the_order_of_the_classes(model, image, categories):
    return [categories[place] for place in sorted(model.eval()(image[None])[0].topk(3).indices.tolist())][::-1]


@wrong(pretrained.top_names, "Not three names")
def all_of_them(model, image, categories):
    return [categories[place] for place in model.eval()(image[None])[0].argsort(descending=True)]


# --- most_alike


@right(pretrained.most_alike)
def one_after_the_other(features):
    found = []
    for place, one in enumerate(features):
        alike = torch.cosine_similarity(one[None], features)
        alike[place] = -float("inf")
        found.append(int(alike.argmax()))
    return torch.tensor(found)


@right(pretrained.most_alike)
def by_subtracting_the_diagonal(features):
    unit = features / features.norm(dim=1)[:, None]
    return (unit @ unit.T - 3 * torch.eye(len(features))).max(dim=1)[1]


@wrong(pretrained.most_alike, "has the shape list")
def as_a_list_of_numbers(features):
    return one_after_the_other(features).tolist()


@wrong(pretrained.most_alike, "has the shape (12, 12)")
def all_the_cosines(features):
    unit = nn.functional.normalize(features)
    return unit @ unit.T


@wrong(pretrained.most_alike, "has the shape (12, 1)")
def a_column(features):
    return one_after_the_other(features)[:, None]


@wrong(pretrained.most_alike, "not those with the most similar direction")
def by_distance(features):
    return torch.cdist(features, features).fill_diagonal_(float("inf")).argmin(1)


# --- costliest_mistake


@wrong(pretrained.costliest_mistake, "is not in the task's lists")
def in_other_words():
    return "0-255", "range"


@wrong(pretrained.costliest_mistake, "A choice and a reason were asked for")
def three_of_them():
    return "0 to 255", "BGR", "range"


@pytest.mark.parametrize(("exercise", "answer"), answers.rights)
def test_right_in_another_style(exercise, answer):
    passes(exercise, answer)


@pytest.mark.parametrize(("exercise", "answer", "says"), answers.wrongs)
def test_wrong_and_told_why(exercise, answer, says):
    is_wrong(exercise, answer, says)
