"""Devices, and the variable that chooses them."""

import os
import subprocess
import sys

import torch

from ftlab.probes import probe
from ftlab.probes._outcomes import raises


@probe("PyTorch's name for a GPU is `cuda:0`; `/gpu:0` is refused.")
def names_of_devices() -> bool:
    return torch.device("cuda:0").index == 0 and raises(RuntimeError, lambda: torch.device("/gpu:0"))


@probe("An environment variable is a string: a number is refused.")
def the_variable_is_a_string() -> bool:
    return raises(TypeError, lambda: os.environ.__setitem__("CUDA_VISIBLE_DEVICES", 0))


@probe("Importing torch does not start CUDA, and the variable is read when it is asked for, not at the import.")
def importing_does_not_start_cuda() -> bool:
    script = (
        "import os, torch; started = torch.cuda.is_initialized(); os.environ['CUDA_VISIBLE_DEVICES'] = '2,0'; "
        "print(started, torch.cuda._parse_visible_devices())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip() == "False [2, 0]"


@probe("The order in CUDA_VISIBLE_DEVICES is the numbering; a wrong entry ends the list, a double one voids it.")
def the_list_of_devices() -> bool:
    before, found = os.environ.get("CUDA_VISIBLE_DEVICES"), {}
    try:
        for value in ("2,0", "0,x,1", "1,-1,0", "0,0", ""):
            os.environ["CUDA_VISIBLE_DEVICES"] = value
            found[value] = torch.cuda._parse_visible_devices()
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
    return found == {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1], "0,0": [], "": []}
