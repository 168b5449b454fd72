"""What is saved under the name of a checkpoint and is none: told by its first bytes."""

from .bounds import Broken

_BEGINNINGS = {
    b"\x1f\x8b": ("a gzip file", "Unpack it first: python -m gzip -d FILE"),
    b"BZh": ("a bzip2 file", "Unpack it first."),
    b"\xfd7zXZ": ("an xz file", "Unpack it first."),
    b"\x28\xb5\x2f\xfd": ("a zstandard file", "Unpack it first."),
    b"7z\xbc\xaf": ("a 7-Zip archive", "Unpack it first."),
    b"\x89HDF": ("an HDF5 file, as Keras writes it", "It has no tensors of PyTorch; look for a converter."),
    b"GGUF": ("a GGUF file, as llama.cpp writes it", "It has no tensors of PyTorch; look for a converter."),
    b"Rar!": ("a RAR archive", "Unpack it first."),
    b"\x04\x22M\x18": ("an LZ4 file", "Unpack it first."),
    b"HTTP/1.": ("an answer of a web server with its header", "Download it once more, with a browser or wget."),
    b"\x00\x05\x16\x07": (
        "what macOS keeps beside a file (AppleDouble)",
        "Its name begins with ._; the checkpoint is the file without these two characters.",
    ),
    b"\x93NUMPY": ("one array of numpy", "Read it with numpy.load."),
    b"%PDF": ("a PDF", "It is a document. Look for the link of the file itself."),
    b"\x89PNG": ("a PNG image", "It is a picture. Look for the link of the file itself."),
    b"\xff\xd8\xff": ("a JPEG image", "It is a picture. Look for the link of the file itself."),
}


def foreign(head: bytes, name: str) -> Broken | None:
    """Return what a file is that is no checkpoint, by its first 512 bytes, or None."""
    if not head.strip(b"\x00"):
        what = "is empty" if not head else "begins with nothing but zeros"
        return Broken(
            "empty", f"the file {what}", "Nothing was written, or the disk was full. Get the file again."
        )
    return _text(head) or _binary(head)


def _binary(head: bytes) -> Broken | None:
    for beginning, (what, advice) in _BEGINNINGS.items():
        if head.startswith(beginning):
            return Broken("foreign", f"the file is {what}", advice)
    if head[:1] == b"\x08" and b"pytorch" in head[:40]:
        return Broken(
            "foreign",
            "the file is a model in ONNX",
            "onnx.load opens it, and onnxruntime runs it. Look for the .pt that it was made from: names and "
            "layers may be others there.",
        )
    if head[4:8] == b"TFL3":
        return Broken("foreign", "the file is a model of TensorFlow Lite", "It has no tensors of PyTorch.")
    if head[257:262] == b"ustar":
        return Broken(
            "foreign",
            "the file is a tar archive",
            "It is an archive of files, or from torch 0.1, before 2017. Look into it: python -m tarfile -l FILE",
        )
    return None


def _pointer(head: bytes) -> Broken:
    fields = dict(line.split(b" ", 1) for line in head.splitlines() if b" " in line)
    size = fields.get(b"size", b"?")[:20].decode("latin-1")
    return Broken(
        "lfs-pointer",
        f"the file is a pointer of Git LFS to a file of {size} bytes",
        "The repository was fetched without its large files. In it, run: git lfs pull",
    )


def _text(head: bytes) -> Broken | None:
    """Return what a text is: a page, an error, a pointer."""
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(b"version https://git-lfs"):
        return _pointer(head)
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<body")):
        return _page(head)
    if text.startswith(b"{"):
        return _json(head)
    return None


def _json(head: bytes) -> Broken:
    if b'"weight_map"' in head or b'"total_size"' in head:
        return Broken(
            "foreign",
            "the file is the index of a checkpoint in several files (JSON)",
            "It says which tensor is in which file. Give the doctor those files, one by one.",
        )
    return Broken(
        "foreign",
        f"the file is a text in JSON: {head[:60].decode('utf-8', 'replace')}",
        "It is a configuration, or a server's answer in place of the file. Get the file with the weights.",
    )


def _page(head: bytes) -> Broken:
    if b"<Error>" in head and b"<Code>" in head:  # as S3 and others answer
        code = head.split(b"<Code>")[1].split(b"<")[0][:40].decode("utf-8", "replace")
        return Broken(
            "html-page",
            f"the file is the error of a server: {code}",
            "The link has run out, or you are not allowed to fetch it. Get a new link.",
        )
    start = head.lower().find(b"<title>")
    title = head[start + 7 :].split(b"<")[0][:60].decode("utf-8", "replace").strip() if start >= 0 else ""
    named = f" with the title {title!r}" if title else ""
    return Broken(
        "html-page",
        f"the file is a web page{named}",
        "The link leads to a page about the file, to a log-in or to an error, and that page was saved. "
        "Download the file itself: on GitHub the link 'raw', on Hugging Face 'resolve' in place of 'blob'.",
    )


def is_text(head: bytes) -> bool:
    """Return whether the beginning of a file is a text of plain letters."""
    return head.isascii() and all(letter.isprintable() or letter in "\n\r\t" for letter in head.decode("ascii"))


def unknown(head: bytes) -> Broken:
    """Return the finding about a file of which nothing is known."""
    if is_text(head):
        return Broken(
            "foreign",
            f"the file is a text: {head[:60].decode('ascii')!r}",
            "It is no checkpoint, or a server's answer in place of one. Get the file with the weights.",
        )
    return Broken(
        "foreign",
        f"the file begins with {head[:16]!r}, as no checkpoint does",
        "It is no file of torch.save and no safetensors file, or its beginning was damaged. Get it again.",
    )
