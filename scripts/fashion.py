"""Fashion-MNIST's test set as Debian packages it (dataset-fashion-mnist): its pictures as files and in a terminal."""
import gzip
import os
import struct

from line import Failure

FOLDER = "/usr/share/datasets/fashion-mnist"
SIDE = 28


def read_idx(name, magic):
    """The dimensions and bytes of an IDX file of unsigned bytes."""
    path = os.path.join(FOLDER, name)
    try:
        with gzip.open(path) as file:
            data = file.read()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}; scripts/install-deps test installs it") from error
    rank = magic & 0xFF
    head = struct.unpack(f">I{rank}I", data[:4 + 4 * rank])
    if head[0] != magic:
        raise Failure(f"{path} is not the IDX file that was expected")
    return head[1:], data[4 + 4 * rank:]


def read_pictures(count=None):
    """The first pictures, each as SIDE * SIDE bytes."""
    (total, height, width), data = read_idx("t10k-images-idx3-ubyte.gz", 0x803)
    size = height * width
    return [data[i * size:(i + 1) * size] for i in range(min(count or total, total))]


def read_labels():
    return read_idx("t10k-labels-idx1-ubyte.gz", 0x801)[1]


def write_pictures(folder, count=None):
    """Writes the first pictures as 00000.pgm, ... into folder; keeps those that are there."""
    os.makedirs(folder, exist_ok=True)
    for i, picture in enumerate(read_pictures(count)):
        path = os.path.join(folder, f"{i:05}.pgm")
        if not os.path.exists(path):
            with open(f"{path}.new", "wb") as out:
                out.write(b"P5\n%d %d\n255\n" % (SIDE, SIDE) + picture)
            os.rename(f"{path}.new", path)


def draw(picture, colour):
    """A picture as lines of text, two pixels a character: half blocks in grey, or shades where there are no colours."""
    rows = []
    for y in range(2, SIDE - 2, 2):
        row = ""
        for x in range(2, SIDE - 2):
            upper, lower = picture[y * SIDE + x], picture[(y + 1) * SIDE + x]
            if colour:
                row += f"\033[38;5;{grey(upper)};48;5;{grey(lower)}m▀"
            else:
                row += " ░▒▓█"[(upper + lower) * 5 // 511]
        rows.append(row + ("\033[0m" if colour else ""))
    return rows


def grey(value):
    """One of a terminal's 24 shades of grey."""
    return 232 + value * 23 // 255


def show(pictures, captions, columns, colour):
    """Pictures beside each other with captions of any number of lines below, as many as fit into columns."""
    width = SIDE - 4
    fit = max(1, (columns + 2) // (width + 2))
    for begin in range(0, len(pictures), fit):
        drawn = [draw(p, colour) for p in pictures[begin:begin + fit]]
        below = captions[begin:begin + fit]
        for row in zip(*drawn):
            print("  ".join(row))
        for row in zip(*below):
            print("  ".join(f"{text[:width]:{width}}" for text in row))
        print()
