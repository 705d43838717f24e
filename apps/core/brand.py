"""The operator's accent: one colour becomes the accent of light and dark, each readable wherever it stands.

Colours are written `#rrggbb`. Contrast is WCAG's, computed from the eight bits that a screen is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

CONTRAST_MIN = 4.5
# What accents stand on: paper, surface and sunken of tokens.css.
LIGHT_GROUNDS = ("#fbfaf7", "#ffffff", "#f4f2ee")
DARK_GROUNDS = ("#0f1612", "#171e1a", "#0a100d")
ON_LIGHT = "#fcfcf9"
STEP = 0.004  # Of lightness: finer than anybody sees.
STRONGER = 0.065

type Lch = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accent:
    """An accent in one scheme.

    accent: links, marks, focus rings and the ground of buttons. strong: the same under the pointer. soft: the ground
    of what is selected. on: text on `accent` and `strong`.
    """

    accent: str
    strong: str
    soft: str
    on: str


@cache
def accents(colour: str) -> tuple[Accent, Accent]:
    """Return the accent of light and of dark.

    Hue and chroma stay, as far as a screen can show them; lightness moves only where a pair of text and ground would
    have less contrast than CONTRAST_MIN.
    """
    _lightness, chroma, hue = _lch(colour)
    light = _readable(
        colour,
        (*LIGHT_GROUNDS, soft := shown((0.95, min(chroma, 0.025), hue))),
        on=ON_LIGHT,
        step=-STEP,
    )
    at = _lch(light)[0]
    strong = at - STRONGER if at > 2 * STRONGER else at + 2 * STRONGER
    of_light = Accent(accent=light, strong=shown((strong, chroma, hue)), soft=soft, on=ON_LIGHT)

    on_dark = shown((0.19, min(chroma, 0.03), hue))
    dark = _readable(
        colour,
        (*DARK_GROUNDS, soft := shown((0.27, min(chroma, 0.035), hue))),
        on=on_dark,
        step=STEP,
    )
    at = _lch(dark)[0]
    strong = at + STRONGER if at < 1 - 2 * STRONGER else at - STRONGER
    return of_light, Accent(accent=dark, strong=shown((strong, chroma, hue)), soft=soft, on=on_dark)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def stylesheet(colour: str) -> str:
    """Return the rules that put the accent in place of ours; success stays green, whatever the accent means."""
    light, dark = accents(colour)
    return f"""@layer tokens {{
  :root {{
    --brand: light-dark({light.accent}, {dark.accent});
    --brand-strong: light-dark({light.strong}, {dark.strong});
    --brand-soft: light-dark({light.soft}, {dark.soft});
    --on-brand: light-dark({light.on}, {dark.on});
    --success: light-dark(oklch(0.48 0.1 160), oklch(0.76 0.12 160));
    --success-soft: light-dark(oklch(0.95 0.025 160), oklch(0.27 0.035 160));
  }}
}}
"""


def mail_stylesheet(colour: str) -> str:
    """Return the rules that follow those of mail.css."""
    light, dark = accents(colour)
    return f"""
a {{ color: {light.accent}; }}
.button {{ background-color: {light.accent}; }}
.button__link {{ color: {light.on}; }}
@media (prefers-color-scheme: dark) {{
  a {{ color: {dark.accent} !important; }}
  .button {{ background-color: {dark.accent} !important; }}
  .button__link {{ color: {dark.on} !important; }}
}}
"""


def _readable(colour: str, grounds: tuple[str, ...], *, on: str, step: float) -> str:
    """Return the nearest colour in the direction of `step` that holds on all grounds and under `on`."""
    lightness, chroma, hue = _lch(colour)
    found = colour.lower()
    while any(contrast(found, other) < CONTRAST_MIN for other in (*grounds, on)):
        lightness += step
        assert -STEP < lightness < 1 + STEP, "black holds on every light ground, white on every dark one"
        found = shown((min(max(lightness, 0), 1), chroma, hue))
    return found


# --- sRGB and OKLCH, as CSS Color 4 converts them ---


def shown(lch: Lch) -> str:
    """Return an OKLCH colour, its hue in radians, as a screen shows it.

    Where sRGB ends chroma gives way; lightness and hue stay.
    """
    lightness, chroma, hue = lch
    low, high = 0.0, chroma
    if not _is_shown(_rgb(lch)):
        for _halving in range(16):
            middle = (low + high) / 2
            low, high = (middle, high) if _is_shown(_rgb((lightness, middle, hue))) else (low, middle)
        chroma = low
    parts = (round(min(max(part, 0), 1) * 255) for part in _rgb((lightness, chroma, hue)))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _is_shown(rgb: tuple[float, float, float]) -> bool:
    return all(-0.0005 <= part <= 1.0005 for part in rgb)


def _linear(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))

    def one(part: float) -> float:
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    return one(red), one(green), one(blue)


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _lch(colour: str) -> Lch:
    red, green, blue = _linear(colour)
    long = math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    medium = math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    lightness = 0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short
    a = 1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short
    b = 0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short
    return lightness, math.hypot(a, b), math.atan2(b, a)


def _rgb(lch: Lch) -> tuple[float, float, float]:
    lightness, chroma, hue = lch
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3

    def one(part: float) -> float:
        return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055

    return (
        one(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        one(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        one(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )
