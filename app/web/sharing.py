"""What a page says of itself to other sites."""

import re
from html import escape
from urllib.parse import unquote, urlsplit

from fastapi import Request

from app import urls
from app.errors import PageNotFound
from app.web.contexts import FeaturePage, SAEPage
from app.web.formats import measured
from app.web.preview_contexts import Preview

EMBED_WIDTH, EMBED_HEIGHT = 640, 420


def absolute(request: Request, path: str) -> str:
    """The URL of ``path`` under the name this server was asked by, which the guard has let through."""
    return str(request.base_url).rstrip("/") + path


def feature_preview(request: Request, page: FeaturePage) -> Preview:
    top = [token.token.strip() for token in page.usage.tokens_by_probability] if page.usage else []
    tokens = ", ".join(dict.fromkeys(filter(None, top or [t.token.strip() for t in page.promoted])))
    url = absolute(request, urls.feature(page.address, page.index))
    return Preview(
        title=f"{page.label} · feature {page.index} of {page.sae}",
        description=f"{page.label}. {'Fires on' if top else 'Promotes'}: {tokens[:200]}" if tokens else page.label,
        url=url,
        image=absolute(request, urls.og_image(page.address, page.index)),
        oembed=absolute(request, urls.oembed(url)),
    )


def sae_preview(request: Request, page: SAEPage) -> Preview:
    m = page.metrics
    return Preview(
        title=f"{page.sae} · saescope",
        description=f"{page.architecture} SAE of {page.n_latents:,} latents on {page.subject}, "
        f"{', '.join(page.reads)}: L0 {measured(m.l0, m.tokens)}, FVU {measured(m.fvu, m.tokens)}.",
        url=absolute(request, urls.sae(page.address)),
        image=absolute(request, urls.og_image(page.address)),
        oembed=None,
    )


def frame(src: str, title: str, width: int = EMBED_WIDTH, height: int = EMBED_HEIGHT) -> str:
    """The HTML that shows an embed in another page."""
    return f'<iframe src="{escape(src)}" title="{escape(title)}" width="{width}" height="{height}"></iframe>'


def feature_of(request: Request, url: str) -> tuple[str, int]:
    """The SAE's address and the index that a feature page's absolute URL names.

    Raises:
        PageNotFound: it is no feature page of this server.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    here = parts.scheme in ("http", "https") and parts.netloc == request.url.netloc
    found = re.fullmatch(r"/saes/([^/]+)/features/([0-9]{1,18})", parts.path) if here else None
    if found is None:
        raise PageNotFound(f"{url[:100]!r} is no feature page of this server.", url=url[:100])
    return unquote(found[1]), int(found[2])
