"""What people write, as HTML: escaped, in paragraphs, with links to this site's own pages and no others."""

import re

from markupsafe import Markup, escape

# A path of this site as a word by itself; a full stop or bracket after it is not part of it.
_PATH = re.compile(
    r"(?<![^\s(\[\"“‘'])/(?:saes|lists|inspect|intervene|attribute|compare|contexts|search|harvests|training)"
    r"(?:[/?#][^\s<>\"'“”‘’]*)?(?=[\s.,;:!?)\]\"”’']|$)"
)
_AFTER = ".,;:!?)]"


def prose(text: str) -> Markup:
    """A line break stays one, an empty line parts paragraphs."""
    parts = [part for part in re.split(r"\n[ \t]*\n\s*", text.strip()) if part.strip()]
    return Markup("\n").join(Markup('<p dir="auto">') + _linked(part) + Markup("</p>") for part in parts)


def _linked(text: str) -> Markup:
    out, at = [], 0
    for found in _PATH.finditer(text):
        path = found[0].rstrip(_AFTER)
        out += [escape(text[at : found.start()]), Markup('<a href="{0}">{0}</a>').format(path)]
        at = found.start() + len(path)
    return Markup("").join([*out, escape(text[at:])]).replace("\n", Markup("<br>\n"))
