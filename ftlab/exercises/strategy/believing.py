"""What to believe: a difference over seeds, a choice among many, a curve beyond its last point."""

import math
import random
from statistics import fmean, stdev

from ftlab.exercises.core import Mistake, Wrong, exercise


def check_is_better(answer):
    """Accuracies over the seeds: a clear and an unclear difference, luck that both share, and a single seed."""
    luck = [random.gauss(0, 0.05) for _ in range(6)]
    noise = [0.004, -0.004, 0.002, -0.002, 0.003, -0.003]
    base = [0.7 + one for one in luck]
    tries = {
        "a is 3 points better with every seed, while draws differ by 5 points": (
            [one + 0.03 + small for one, small in zip(base, noise, strict=True)], base, True,
        ),
        "a is better on average only because of one seed": (
            [one + 0.001 + 0.2 * (place == 2) for place, one in enumerate(base)], base, False,
        ),
        "a is 3 points worse with every seed": (
            [one - 0.03 + small for one, small in zip(base, noise, strict=True)], base, False,
        ),
        "a is better by 2 points with nine seeds, which differ by 1.8 points": (
            [0.7 + 0.02 + 0.018 * (place - 4) / 2.74 for place in range(9)], [0.7] * 9, True,
        ),
    }  # fmt: skip
    for case, (a, b, wanted) in tries.items():
        if _verdict(answer(list(a), list(b))) != wanted:
            said = "clear" if not wanted else "not clear"
            ask = "What is the difference with each seed, and how much do these differences differ?"
            raise Wrong(f"You call it {said}: {case}.", ask=ask)
    _expect_nothing_from_one_seed(answer)


def _verdict(given) -> bool:
    if isinstance(given, str):
        raise Wrong(f"The text `{given}` came back, not `True` or `False`.", ask="What does a comparison give?")
    return bool(given)


def _expect_nothing_from_one_seed(answer) -> None:
    if _verdict(answer([0.9], [0.5])):
        ask = "How large is the spread of one number?"
        raise Wrong("You call it clear with a single seed.", ask=ask)


def _with_numpy(a, b):
    import numpy as np

    each = np.array(a) - np.array(b)
    return bool(len(each) > 1 and each.mean() > 2 * each.std(ddof=1) / len(each) ** 0.5)


def _by_hand(a, b):
    if len(a) < 2:
        return False
    each = [one - other for one, other in zip(a, b, strict=True)]
    mean = sum(each) / len(each)
    variance = sum((one - mean) ** 2 for one in each) / (len(each) - 1)
    return mean > 2 * math.sqrt(variance / len(each))


def _by_mean(a, b):
    return fmean(a) > fmean(b)


def _by_best_seed(a, b):
    return max(a) > max(b)


def _spread_of_each(a, b):
    return len(a) > 1 and fmean(a) - fmean(b) > stdev(a) + stdev(b)


def _without_root(a, b):
    each = [one - other for one, other in zip(a, b, strict=True)]
    return len(each) > 1 and fmean(each) > 2 * stdev(each)


def _either_way(a, b):
    each = [one - other for one, other in zip(a, b, strict=True)]
    return len(each) > 1 and abs(fmean(each)) > 2 * stdev(each) / math.sqrt(len(each))


def _as_a_word(a, b):
    return "yes" if _by_hand(a, b) else "no"


def _one_seed_will_do(a, b):
    each = [one - other for one, other in zip(a, b, strict=True)]
    return fmean(each) > (2 * stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0)


@exercise(
    check=check_is_better,
    hints=[
        "With one seed both saw the same images. Subtract first, seed by seed.",
        "The mean of n differences is uncertain by their standard deviation, divided by the root of n.",
        "`statistics.stdev` wants two numbers or more. With one seed nothing is clear.",
    ],
    also_right=[_with_numpy, _by_hand],
    mistakes=[
        Mistake(_by_mean, says="only because of one seed"),
        Mistake(_by_best_seed, says="only because of one seed"),
        Mistake(_spread_of_each, says="You call it not clear: a is 3 points better with every seed"),
        Mistake(_without_root, says="You call it not clear: a is better by 2 points with nine seeds"),
        Mistake(_either_way, says="You call it clear: a is 3 points worse"),
        Mistake(_one_seed_will_do, says="with a single seed"),
        Mistake(_as_a_word, says="not `True` or `False`"),
    ],
    remember="Subtract seed by seed: the luck of the draw is in both, and goes away.",
)
def is_better(a: list[float], b: list[float]) -> bool:
    """Write: return whether strategy a is clearly better than strategy b.

    `a[i]` and `b[i]` are their accuracies with seed i. It is clear if the mean of the differences is more than
    twice its standard error: the standard deviation of the differences, divided by the root of their number.
    """
    from statistics import fmean, stdev

    each = [one - other for one, other in zip(a, b, strict=True)]
    return len(each) > 1 and fmean(each) > 2 * stdev(each) / len(each) ** 0.5


def check_pick_and_report(answer):
    """Which strategy is chosen, and which number is reported, on three sets of made up accuracies."""
    tries = [
        ({"a": 0.70, "b": 0.82, "c": 0.64, "d": 0.80}, {"a": 0.71, "b": 0.76, "c": 0.66, "d": 0.81}, "b"),
        ({"x": 0.91, "y": 0.90}, {"x": 0.86, "y": 0.95}, "x"),
        ({"p": 0.60, "q": 0.70}, {"p": 0.80, "q": 0.75}, "q"),
    ]
    for val, test, wanted in tries:
        given = answer(dict(val), dict(test))
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Wrong("Not a pair of a name and an accuracy came back.", ask='Is it like `("a", 0.7)`?')
        name, accuracy = given
        if name not in val:
            raise Wrong(f"`{name}` is not the name of a strategy.", ask='Is it like `("a", 0.7)`?')
        if name == max(test, key=test.get) != wanted:
            text = f"Your choice, `{name}`, is the best on the test images: they had a say in it."
            raise Wrong(text, ask="Which images may be looked at before the choice is made?")
        if name != wanted:
            raise Wrong(f"You chose `{name}`, which is not the best on validation.", ask="What is compared?")
        if accuracy == val[wanted]:
            text = f"You report {accuracy:.2f}, the number by which `{name}` was chosen: it is partly luck."
            raise Wrong(text, ask="Which images have had no say in the choice?")
        if accuracy != test[wanted]:
            raise Wrong(f"The accuracy that you report for `{name}` is another one.", ask="Whose accuracy is it?")


def _sorted_by_val(val, test):
    name = sorted(val, key=val.get)[-1]
    return name, test[name]


def _by_items(val, test):
    _, name = max((accuracy, name) for name, accuracy in val.items())
    return [name, test[name]]


def _best_on_test(val, test):
    name = max(test, key=test.get)
    return name, test[name]


def _report_val(val, test):
    name = max(val, key=val.get)
    return name, val[name]


def _mean_of_both(val, test):
    mean = {name: (val[name] + test[name]) / 2 for name in val}
    name = max(mean, key=mean.get)
    return name, test[name]


def _best_of_all_tests(val, test):
    return max(val, key=val.get), max(test.values())


def _lower_of_both(val, test):
    name = max(val, key=val.get)
    return name, min(val[name], test[name])


def _accuracy_first(val, test):
    name = max(val, key=val.get)
    return test[name], name


def _largest_name(val, test):
    name = min(val, key=val.get)
    return name, test[name]


@exercise(
    check=check_pick_and_report,
    broken=_best_on_test,
    hints=[
        "Two jobs, two sets of images: one chooses, the other one reports.",
        "`max(val, key=val.get)` is the name with the highest accuracy on validation.",
        "Then look up what this one has on the test images, and leave it at that, even if another one has more.",
    ],
    also_right=[_sorted_by_val, _by_items],
    mistakes=[
        Mistake(_report_val, says="the number by which"),
        Mistake(_mean_of_both, says="they had a say in it"),
        Mistake(_best_of_all_tests, says="is another one"),
        Mistake(_largest_name, says="not the best on validation"),
        Mistake(_lower_of_both, says="the number by which"),
        Mistake(_accuracy_first, says="not the name of a strategy"),
    ],
    remember="Choose on validation, report on test, once.",
)
def pick_and_report(val: dict[str, float], test: dict[str, float]) -> tuple[str, float]:
    """Repair: choose a strategy, and return its name with the accuracy that you would publish.

    Both have the accuracy of each strategy, on the validation images and on the test images.
    """
    name = max(val, key=val.get)
    return name, test[name]


def check_error_at(answer):
    """Two learning curves whose error falls by a fixed factor with each doubling, and one that does not fall."""
    for start, power in ((0.8, 0.5), (0.6, 0.25), (0.3, 0.0)):
        images = [20, 40, 80, 160]
        errors = [start * (count / 20) ** -power for count in images]
        for count in (320, 1000):
            wanted = start * (count / 20) ** -power
            found = float(answer(images, errors, count))
            if not abs(found - wanted) <= 1e-3:  # so that what is no number is wrong too
                _raise_not_on_curve(found, errors, count)


def _raise_not_on_curve(found: float, errors: list[float], count: int) -> None:
    shown = ", ".join(f"{error:.3f}" for error in errors)
    text = f"With the errors {shown} at 20, 40, 80 and 160 images you expect {found:.3f} at {count}."
    if found < 0:
        text += " An error below 0 is better than all right."
    factor = errors[1] / errors[0]
    ask = f"From 20 to 40 images the error is multiplied with {factor:.2f}, from 40 to 80 as well. And then?"
    if count == 1000:  # 320, which is one doubling, was right
        ask = "How many doublings is it from 160 to 1000, if they need not be a whole number?"
    raise Wrong(text, ask=ask)


def _by_two_points(images, errors, count):
    power = math.log(errors[0] / errors[-1]) / math.log(images[-1] / images[0])
    return errors[-1] * (count / images[-1]) ** -power


def _with_numpy_fit(images, errors, count):
    import numpy as np

    slope, height = np.polyfit(np.log2(images), np.log2(errors), 1)
    return float(2 ** (slope * np.log2(count) + height))


def _straight_on(images, errors, count):
    slope = (errors[-1] - errors[-2]) / (images[-1] - images[-2])
    return errors[-1] + slope * (count - images[-1])


def _the_last_one(images, errors, count):
    return errors[-1]


def _whole_doublings(images, errors, count):
    error, reached = errors[-1], images[-1]
    while reached < count:
        error, reached = error * errors[1] / errors[0], 2 * reached
    return error


def _like_one_over_n(images, errors, count):
    return errors[-1] * images[-1] / count


def _straight_in_the_logarithm(images, errors, count):
    slope = (errors[-1] - errors[0]) / math.log(images[-1] / images[0])
    return errors[-1] + slope * math.log(count / images[-1])


@exercise(
    check=check_error_at,
    hints=[
        "Divide each error by the one before. What do you see?",
        "A fixed factor per doubling is a straight line if *both* axes are logarithms.",
        "`power = log(errors[0] / errors[-1]) / log(images[-1] / images[0])`, and then on from the last point.",
    ],
    also_right=[_by_two_points, _with_numpy_fit],
    mistakes=[
        Mistake(_straight_on, says="you expect"),
        Mistake(_the_last_one, says="you expect"),
        Mistake(_whole_doublings, says="at 1000"),
        Mistake(_like_one_over_n, says="you expect"),
        Mistake(_straight_in_the_logarithm, says="you expect"),
    ],
    remember="Each doubling multiplies the error, if anything is regular at all. Look at the factor before you "
    "label another hundred images.",
)
def error_at(images: list[int], errors: list[float], count: int) -> float:
    """Transfer: continue a learning curve, and return the error to be expected with `count` images.

    `errors[i]` is the error (1 - accuracy) with `images[i]` images, each count twice the one before. On this
    curve every doubling multiplies the error with the same factor.
    """
    import math

    factor = (errors[-1] / errors[0]) ** (1 / (len(errors) - 1))  # of one doubling
    return errors[-1] * factor ** math.log2(count / images[-1])
