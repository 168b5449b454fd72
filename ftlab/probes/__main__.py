"""Say of each sentence of the lessons whether it is true with the PyTorch that is installed here.

    python -m ftlab.probes            # all topics
    python -m ftlab.probes freezing   # those named

The exit code is 0 if all are true, 1 if one is not, and 2 if there is no such topic.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
import torchvision

from ftlab.nearest import nearest
from ftlab.probes import run, topics


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each sentence as soon as it is known; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ftlab.probes", description=__doc__.splitlines()[0])
    parser.add_argument("topic", nargs="*", help="such as freezing; all topics if none is named")
    wanted = parser.parse_args(arguments).topic
    for topic in wanted:
        if topic not in topics():
            parser.error(f"there is no topic {topic!r}; {nearest(topic, topics())}")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}", flush=True)
    verdicts = [verdict for topic in wanted or topics() for verdict in _say(topic)]
    print(f"{sum(verdicts)} of {len(verdicts)} sentences are true here")
    return 0 if all(verdicts) else 1


def _say(topic: str) -> list[bool]:
    try:
        rows = run(topic).to_dict()
    except Exception as error:  # an older torch may lack what the module of the topic needs
        print(f"false  {topic}: its probes cannot be loaded ({type(error).__name__}: {error})", flush=True)
        return [False]
    for row in rows:
        true, _, reason = row["true here"].partition(": ")
        word = "true" if true == "yes" else "false"
        print(f"{word:5}  {topic}: {row['sentence']}{f' ({reason})' if reason else ''}", flush=True)
    return [row["true here"] == "yes" for row in rows]


if __name__ == "__main__":
    sys.exit(main())
