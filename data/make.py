"""Make the images and the digits of this folder, byte for byte, from the packages they come from.

Nobody needs this to use ftlab: what it makes is in the repository.

    python data/make.py --check                  compare what is here with SHA256SUMS
    python data/make.py                          fetch the packages with `npm pack`, make everything again
    python data/make.py --packages FOLDER        the same from emoji-datasource-*-16.0.0.tgz in FOLDER

Making needs Pillow and scikit-learn in the versions of constraints.txt: another Pillow may bring another zlib,
which packs the same pixels into other bytes.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
MADE_WITH = "13.0.0"  # the Pillow that packed the committed files

VERSION = "16.0.0"
PACKAGES = {  # our vendor name: (the package's, sha512 of its tgz)
    "noto": (
        "google",
        "6517b17f3b3b315a0b9e6cd998db0ee132a19c0269e43fbe566e8fa54a47fe31"
        "104257a6a7797cf028d9f83a19d9f68cf51e10c5990e3c90a84fc0e53e17d0dc",
    ),
    "twemoji": (
        "twitter",
        "ec5fae0ae1c7fbb427adcd793f9b676ef2a483d13ab65ce2e0c9d3dae5b54653"
        "78a4b613cdae9c3ff76cb487d20ccb698c52d6b997b05a0f2305bb8bd9ec842d",
    ),
}

# A class is made of Unicode subcategories ...
CLASSES = {
    "animal": [
        "animal-mammal",
        "animal-bird",
        "animal-amphibian",
        "animal-reptile",
        "animal-marine",
        "animal-bug",
    ],
    "building": ["place-building", "place-religious"],
    "clothing": ["clothing"],
    "face": [
        "face-affection",
        "face-concerned",
        "face-glasses",
        "face-hand",
        "face-hat",
        "face-negative",
        "face-neutral-skeptical",
        "face-sleepy",
        "face-smiling",
        "face-tongue",
        "face-unwell",
    ],
    "food": ["food-asian", "food-fruit", "food-prepared", "food-sweet", "food-vegetable"],
    "plant": ["plant-flower", "plant-other"],
    "sport": ["sport"],
    "vehicle": ["transport-air", "transport-ground", "transport-water"],
}

# ... without those that nobody would file there by the picture.
DROPPED = {
    "animal": {
        "FEATHER",
        "WING",
        "SPIDER WEB",
        "MICROBE",
        "PIG NOSE",
        "PAW PRINTS",
        "SPIRAL SHELL",
        "CORAL",
    },
    "building": {"BRICK", "ROCK", "WOOD", "BUILDING CONSTRUCTION", "STATUE OF LIBERTY"},
    "clothing": {
        "FOLDING HAND FAN",
        "HAIR PICK",
        "LIPSTICK",
        "RING",
        "GEM STONE",
        "PRAYER BEADS",
        "SHOPPING BAGS",
    },
    "face": {"SKULL", "SKULL AND CROSSBONES"},
    "food": {"SALT SHAKER"},
    "plant": {"WHITE FLOWER", "EMPTY NEST", "NEST WITH EGGS", "MUSHROOM"},
    "sport": {"MARTIAL ARTS UNIFORM", "RUNNING SHIRT WITH SASH"},
    "vehicle": {
        "PARACHUTE",
        "SEAT",
        "SATELLITE",
        "STATION",
        "SKATEBOARD",
        "ROLLER SKATE",
        "BUS STOP",
        "MOTORWAY",
        "RAILWAY TRACK",
        "OIL DRUM",
        "FUEL PUMP",
        "WHEEL",
        "POLICE CARS REVOLVING LIGHT",
        "HORIZONTAL TRAFFIC LIGHT",
        "VERTICAL TRAFFIC LIGHT",
        "OCTAGONAL SIGN",
        "CONSTRUCTION SIGN",
        "ANCHOR",
        "RING BUOY",
    },
}


def archive(vendor: str) -> str:
    return f"emoji-datasource-{PACKAGES[vendor][0]}-{VERSION}.tgz"


def fetch(folder: Path) -> None:
    """Fetch both packages by name into `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(f"npm is missing; put {' and '.join(map(archive, PACKAGES))} into a folder, pass --packages")
    for name, _ in PACKAGES.values():
        subprocess.run([npm, "pack", f"emoji-datasource-{name}@{VERSION}"], cwd=folder, check=True)


def verify(packages: Path, vendor: str) -> Path:
    """Return the path of the vendor's package; refuse another file of that name."""
    path = packages / archive(vendor)
    if not path.is_file():
        sys.exit(f"{path} is missing; `npm pack emoji-datasource-{PACKAGES[vendor][0]}@{VERSION}` fetches it")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").hexdigest()
    if found != PACKAGES[vendor][1]:
        sys.exit(f"{path} has sha512 {found[:16]}..., not {PACKAGES[vendor][1][:16]}...; fetch it again")
    return path


def chosen(emoji: list[dict]) -> dict[str, str]:
    """Return the class of each chosen image by its file name, which is its code points."""
    classes = {subcategory: name for name, parts in CLASSES.items() for subcategory in parts}
    found = {}
    for entry in emoji:
        name = classes.get(entry["subcategory"])
        drawn = entry["has_img_google"] and entry["has_img_twitter"]
        if name and drawn and entry["name"] not in DROPPED.get(name, ()):
            found[entry["image"]] = name
    return found


def flattened(png: bytes) -> bytes:
    """Return an image as RGB on white: a network has no fourth channel for what is transparent."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    packed = io.BytesIO()
    Image.alpha_composite(white, image).convert("RGB").save(packed, "PNG", optimize=True)
    return packed.getvalue()


def emoji_files(packages: Path) -> dict[str, bytes]:
    """Return the content of every emoji file by its path below data/."""
    files = {}
    for vendor, (name, _) in PACKAGES.items():
        with tarfile.open(verify(packages, vendor)) as tar:
            wanted = chosen(json.load(tar.extractfile("package/emoji.json")))
            folder = f"package/img/{name}/64/"
            for member in tar:
                image = member.name.removeprefix(folder)
                if member.name.startswith(folder) and image in wanted:
                    png = tar.extractfile(member).read()
                    files[f"emoji/{vendor}/{wanted[image]}/{image}"] = flattened(png)
    return files


def digits_files() -> dict[str, bytes]:
    """Return the digits as text: one line each, 64 pixels from 0 to 16 and the digit, as UCI writes them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = (
        ",".join(str(int(value)) for value in [*pixels, digit])
        for pixels, digit in zip(digits.data, digits.target, strict=True)
    )
    return {"digits/digits.csv": ("\n".join(rows) + "\n").encode()}


def sums(files: dict[str, bytes]) -> str:
    """Return the text of SHA256SUMS, as `sha256sum --check` reads it."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))


def write(files: dict[str, bytes], folder: Path) -> None:
    for part in ("emoji", "digits"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "SHA256SUMS").write_bytes(sums(files).encode())


def differences(folder: Path = HERE) -> list[str]:
    """Return what is not as SHA256SUMS says: one sentence per file."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    there = {
        path.relative_to(folder).as_posix(): path
        for part in ("emoji", "digits")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }
    missing = [f"{name} is missing" for name in listed if name not in there]
    unlisted = [f"{name} is not in SHA256SUMS" for name in sorted(there) if name not in listed]
    changed = [
        f"{name} is not the file that was made"
        for name, digest in listed.items()
        if name in there and hashlib.sha256(there[name].read_bytes()).hexdigest() != digest
    ]
    return missing + unlisted + changed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare what is here with SHA256SUMS")
    parser.add_argument("--packages", type=Path, help="a folder with the two .tgz files")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write; this folder by default")
    options = parser.parse_args(arguments)
    if not options.check:
        with tempfile.TemporaryDirectory() as folder:
            if options.packages is None:
                fetch(Path(folder))
            files = emoji_files(options.packages or Path(folder)) | digits_files()
        write(files, options.out)
    wrong = differences(options.out)
    if wrong:
        sys.exit("\n".join(wrong))
    listed = (options.out / "SHA256SUMS").read_text().count("\n")
    print(f"{listed} files in {options.out} are as SHA256SUMS says")


if __name__ == "__main__":
    main()
