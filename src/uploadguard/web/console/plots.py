"""Stacked bars over time as SVG elements of the page: no script, no inline style, no file of somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Series", "bars", "share_bar"]

_TOP, _BOTTOM, _LEFT, _RIGHT = 10, 24, 46, 8
_HEIGHT = 200
_TICKS = 4


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of thing that is counted. ``name`` is shown; ``kind`` is its class in the style sheet."""

    name: str
    kind: str
    values: Sequence[int]


def bars(series: Sequence[Series], labels: Sequence[str], title: str, *, width: int) -> Markup:
    """A plot ``width`` pixels wide. ``labels`` has one text for each bar; as many as fit are shown."""
    totals = [sum(column) for column in zip(*(one.values for one in series), strict=True)]
    top = _rounded_up(max(totals, default=0))
    inner_w, inner_h = width - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = inner_w / max(1, len(totals))
    opened = f'<svg class="plot" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" role="img"'
    parts = [f'{opened} aria-label="{escape(title)}" focusable="false">']
    for tick in range(_TICKS + 1):
        y = _TOP + inner_h * (1 - tick / _TICKS)
        value = top * tick / _TICKS
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for place, label in enumerate(labels):
        x, base = _LEFT + step * place, float(_TOP + inner_h)
        told = ", ".join(f"{one.values[place]:,} {one.name}" for one in series if one.values[place])
        parts.append(f"<g><title>{escape(label)}: {escape(told or 'nothing')}</title>")
        parts.append(f'<rect class="hit" x="{x:.1f}" y="{_TOP}" width="{step:.1f}" height="{inner_h}"/>')
        for one in series:
            height = inner_h * one.values[place] / top
            if height > 0:
                base -= height
                parts.append(
                    f'<rect class="bar {escape(one.kind)}" x="{x + step * 0.12:.1f}" y="{base:.1f}" '
                    f'width="{step * 0.76:.1f}" height="{height:.1f}"/>'
                )
        parts.append("</g>")
    every = max(1, -(-len(labels) * 56 // max(1, inner_w)))
    for place in range((len(labels) - 1) % every, len(labels), every):
        x = _LEFT + step * (place + 0.5)
        anchor = "end" if place == len(labels) - 1 else "middle"
        x = x + step * 0.5 if anchor == "end" else x
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{escape(labels[place])}</text>'
        )
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped above


def share_bar(share: float, kind: str = "") -> Markup:
    """A small bar for a table: ``share`` is from 0 to 1."""
    filled = 120 * min(1.0, max(0.0, share))
    return Markup(
        '<svg class="share" viewBox="0 0 120 8" width="120" height="8" aria-hidden="true" focusable="false">'
        '<rect class="track" width="120" height="8" rx="2"/>'
        '<rect class="bar {}" width="{}" height="8" rx="2"/></svg>'
    ).format(kind, f"{max(filled, 1.0):.1f}")


def _rounded_up(value: int) -> int:
    """The next number that four ticks divide well."""
    size = 1
    while value > 40 * size:
        size *= 10
    return next(first * size for first in (4, 8, 12, 20, 40) if value <= first * size)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
