"""Bar charts as SVG, without a library: what `compare` draws."""

import dataclasses
import html

COLORS = {"corelane": "#c2410c", "floor": "#78716c", "haproxy": "#1d4ed8", "nginx": "#15803d"}
BAR, GAP, HEIGHT, MARGIN, TOP = 13, 22, 220, 60, 40


@dataclasses.dataclass
class Panel:
    """Groups of bars: `values` has a number by series and group, where there is one."""

    title: str
    groups: list
    values: dict


def text(x, y, content, anchor="middle", size=11, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" {extra}>'
            f'{html.escape(content)}</text>')


def short(value):
    return f"{value:.2f}" if value < 3 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def draw(panel, top):
    """The panel's elements and its width."""
    series = [name for name in COLORS if panel.values.get(name)]
    step = BAR * max(len(series), 1) + GAP
    width = 2 * MARGIN + step * len(panel.groups)
    greatest = max((value for row in panel.values.values() for value in row.values()), default=1) or 1
    base = top + TOP + HEIGHT
    parts = [text(MARGIN, top + 16, panel.title, "start", 14, 'font-weight="bold"'),
             f'<line x1="{MARGIN}" y1="{base}" x2="{width - MARGIN}" y2="{base}" stroke="#444"/>']
    for number, name in enumerate(panel.groups):
        left = MARGIN + GAP / 2 + step * number
        for place, one in enumerate(series):
            value = panel.values[one].get(name)
            if value is None:
                continue
            height = HEIGHT * value / greatest
            x = left + BAR * place
            parts.append(f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{BAR - 2}" height="{height:.1f}" '
                         f'fill="{COLORS[one]}"><title>{html.escape(f"{name}, {one}: {short(value)}")}</title></rect>')
            at = (x + BAR / 2 + 2, base - height - 4)
            turn = f'transform="rotate(-90 {at[0]:.1f} {at[1]:.1f})"'
            parts.append(text(*at, short(value), "start", 9, turn))
        parts.append(text(left + BAR * len(series) / 2, base + 16, name))
    return parts, width


def svg(panels, note):
    """One picture of all panels, with a legend."""
    parts, width, top = [], 0, 34
    for panel in panels:
        drawn, wide = draw(panel, top)
        parts += drawn
        width, top = max(width, wide), top + HEIGHT + TOP + 50
    x = MARGIN
    for name, color in COLORS.items():
        if any(panel.values.get(name) for panel in panels):
            parts.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{color}"/>')
            parts.append(text(x + 17, 20, name, "start"))
            x += 90
    parts.append(text(x, 20, note, "start", 11, 'fill="#555"'))
    width = max(width, x + 360)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top:.0f}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")
