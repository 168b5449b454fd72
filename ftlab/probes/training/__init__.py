"""What lesson 07 says about gradients, clipping, targets, batches of one, memory, mixed precision and devices."""

from . import order, targets, single, memory, precision, devices  # noqa: F401, I001 - in the order of the lesson
