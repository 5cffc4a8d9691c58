"""
What pictures are drawn with: a width at which text is readable on a phone, colours and markers that are told apart
without colour, labels that do not overlap.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from sklearn.isotonic import IsotonicRegression


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: as many CSS pixels as a phone is wide show its text at about 10 pixels.
WIDTH = 4.3
#: Colours of Okabe and Ito, told apart without colour vision; the first two are the darkest.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, LINES = "osD^vP*X<>", ("-", "--", "-.", ":")
INK, SOFT, PALE = "#1c2430", "#5b6675", "#b8c4ce"
_FONT = 9.5


@dataclass(frozen=True)
class Picture:
    """
    A picture.

    Args:
        name (`str`):
            Its name.
        figure ([`~matplotlib.figure.Figure`]):
            Drawn.
        alt (`str`):
            Text alternative.
        paper (`bool`, *optional*, defaults to `False`):
            Whether it is also written as vector graphics for a paper.
        caption (`str`, *optional*):
            What the page writes below.
    """

    name: str
    figure: "Figure"
    alt: str
    paper: bool = False
    caption: str = ""

    def __post_init__(self):
        lay_out(self.figure)

    @property
    def file(self) -> str:
        """File name of the PNG."""
        return f"report-{self.stem}.png"

    @property
    def stem(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    @cached_property
    def svg(self) -> bytes:
        """As SVG, text as outlines, so that it looks alike without its font."""
        return self._vector("svg", "Date")

    @cached_property
    def pdf(self) -> bytes:
        """As PDF, with its fonts."""
        return self._vector("pdf", "CreationDate")

    def _vector(self, kind: str, date: str) -> bytes:
        """Without a date: equal pictures are equal files."""
        from matplotlib import rc_context

        buffer = io.BytesIO()
        with rc_context({"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format=kind, metadata={date: None})
        return buffer.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """
    Font size and lines of all pictures.

    Raises:
        `ImportError`: matplotlib is not installed (extra `report`).
    """
    from matplotlib import rc_context

    sizes = {f"{part}.labelsize": _FONT for part in ("axes", "xtick", "ytick")}
    with rc_context(
        {"font.size": _FONT, "legend.fontsize": _FONT - 0.5, "axes.linewidth": 0.8, "text.parse_math": False} | sizes
    ):
        yield


def lay_out(figure: "Figure") -> None:
    """Settle the layout, once for all formats."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def axes(height: float) -> "tuple[Figure, Axes]":
    """A figure with one plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def rows_of(count: int) -> "tuple[Figure, Axes]":
    """A figure with a line for each of `count` rows, whose names stand above their lines."""
    figure, axis = axes(1.25 + 0.4 * count)
    axis.spines["left"].set_visible(False)
    axis.set_yticks([])
    axis.set_ylim(count - 0.35, -0.75)
    return figure, axis


def name_row(axis: "Axes", place: int, left: str, right: str = "") -> None:
    """Write above the line of a row."""
    for x, text in ((0, left), (1, right)):
        options = {"ha": "right" if x else "left", "va": "center", "fontsize": _FONT - 0.5, "color": INK}
        options["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the line at 1 passes behind
        axis.text(x, place - 0.42, text, transform=axis.get_yaxis_transform(), **options)


def legend_below(axis: "Axes", columns: int = 3) -> None:
    """The legend, under the plot."""
    count = len(axis.get_legend_handles_labels()[1])
    axis.figure.legend(loc="outside lower center", ncols=max(1, min(columns, count)), frameon=False)


def spread(wanted: Sequence[float], gap: float) -> np.ndarray:
    """The nearest positions, `(n,)`, in the same order and at least `gap` apart."""
    wanted = np.asarray(wanted, np.float64)
    order, steps = np.argsort(wanted, kind="stable"), gap * np.arange(len(wanted))
    placed = np.empty(len(wanted))
    if len(wanted):
        places = np.arange(len(wanted))
        placed[order] = IsotonicRegression().fit_transform(places, wanted[order] - steps) + steps
    return placed


def label_ends(
    axis: "Axes", ends: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]
) -> None:
    """Write the names of lines beside their last points, to the right of the plot."""
    low, high = axis.get_ylim()
    points = axis.figure.get_figheight() * 72 * 0.75
    heights = spread([(y - low) / (high - low) for _, y in ends], 1.3 * _FONT / points)
    for end, height, name, colour in zip(ends, heights, names, colours, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        where = {"xycoords": "data", "textcoords": "axes fraction", "va": "center", "ha": "left"}
        axis.annotate(name, end, (1.03, height), color=INK, arrowprops=line, annotation_clip=False, **where)


def label_points(
    axis: "Axes",
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    kept_free: Sequence[tuple[float, float]],
) -> None:
    """
    Write names beside points, each at the nearest place where it covers no point, no other name and nothing to be
    `kept_free`; a thin line leads there from farther away. The layout of the figure is final afterwards.
    """
    figure = axis.figure
    lay_out(figure)
    frame, scale = axis.get_window_extent(), 72 / figure.dpi
    centres = axis.transData.transform(points)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in [*centres, *axis.transData.transform(kept_free)]]
    for (x, y), point, name, colour in zip(centres, points, names, colours, strict=True):
        text = axis.annotate(name, point, (0, 0), textcoords="offset points", fontsize=_FONT - 1, color=colour)
        size = text.get_window_extent()
        for dx, dy in _offsets(size.width, size.height):
            box = (x + dx, y + dy, x + dx + size.width, y + dy + size.height)
            inside = frame.x0 <= box[0] and box[2] <= figure.bbox.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            if inside and not any(_overlap(box, other) for other in taken):
                break
        else:
            box, (dx, dy) = (x, y, x, y), (5, 5)
        taken.append(box)
        text.set_position((dx * scale, dy * scale))
        nearest = np.array([np.clip(0, dx, dx + size.width), np.clip(0, dy, dy + size.height)])
        if np.hypot(*nearest) > 9:
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axis.annotate("", point, nearest * scale, textcoords="offset points", arrowprops=line)


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Corners of a box of this size around a point, in pixels, nearest first."""
    for radius in range(6, 120, 6):
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            across, up = np.cos(angle), np.sin(angle)
            yield radius * across - width * (1 - across) / 2, radius * up - height * (1 - up) / 2


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def legible(colour: str) -> str:
    """Black or white, whichever is readable on a colour."""
    from matplotlib.colors import to_rgb

    return "black" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "white"
