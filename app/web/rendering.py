"""The Jinja environment and what templates can call."""

import hashlib
from collections.abc import Iterator, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import __version__, urls
from app.store.reader import may, reader
from app.web import browse_charts, charts, evaluation_charts, example_heats, examples, feature_rows, many_charts
from app.web.aligned import aligned_heat, around, bos_marked, by_size, texts
from app.web.formats import duration, exact, measured, number, percent, sig, thousands
from app.web.heat import colour_scale, floats, heat, heat_row, visible
from app.web.presets import PRESETS, preset_url
from app.web.prose import prose
from app.web.sharing import absolute, frame

ROOT = Path(__file__).resolve().parents[2]


@cache
def static(path: str) -> str:
    file = ROOT / "static" / path
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "missing"
    return urls.static(path, version)


class Templates(Environment):
    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """As a plain dict: Jinja's own compares the names of a chain of them at each import."""
        return {**self.globals, **(d or {})}


@cache
def environment() -> Environment:
    env = Templates(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, auto_reload=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.globals.update(urls=urls, static=static, version=__version__, heat_map=heat, visible=visible,
        absolute=absolute, frame=frame, measured=measured,
        example_heat=example_heats.example_heat, example_sections=examples.sections, fold=examples.fold,
        histogram_values=charts.histogram_values,
        chart_svg=charts.chart_svg, table_rows=charts.table_rows, pairs=browse_charts.pairs,
        bars_chart=browse_charts.bars_chart,
        profile_values=charts.profile_values, ranked=charts.ranked, percents=charts.percents,
    )  # fmt: skip
    env.globals.update(
        row=heat_row,
        floats=floats,
        aligned_heat=aligned_heat,
        around=around,
        texts=texts,
        presets=PRESETS,
        preset_url=preset_url,
        order=by_size,
        bos_marked=bos_marked,
        feature_rows=feature_rows,
        view_switches=feature_rows.view_switches,
        colour_scale=colour_scale,
        drawings=evaluation_charts,
        many_charts=many_charts,
        who=reader.get,
        may=may,
    )
    env.tests.update(in_pinned=lambda address: "@" in address)
    env.filters.update(percent=percent, sig=sig, thousands=thousands, duration=duration, exact=exact, prose=prose,
                       number=number)  # fmt: skip
    return env


def _pieces(name: str, context: dict[str, Any], block: str | None = None) -> Iterator[str]:
    """A page, or a block of it, as its template gives it. Macros refer to the context they were defined in, which
    refers to them. Emptied, it lets go of what the page shows at once; else all of that would wait for the garbage
    collector, which stops everyone for 25 ms then."""
    env = environment()
    template = env.get_template(name)
    scope = template.new_context(context)
    try:
        yield from (template.root_render_func if block is None else template.blocks[block])(scope)
    except Exception:
        env.handle_exception()
    finally:
        scope.vars.clear()
        scope.parent.clear()


def render_page(name: str, /, **context: Any) -> str:
    return "".join(_pieces(name, context))


def render_block(name: str, block: str, /, **context: Any) -> str:
    """The template's block ``block`` alone, for htmx."""
    return "".join(_pieces(name, context, block))


PAUSE = "\0"  # where a template stops for what is not there yet; no page holds one


def render_parts(name: str, **context: Any) -> Iterator[str]:
    """A page cut at the template's ``{{ PAUSE }}``. What comes after one is rendered when it is asked for, so what
    ``context`` holds may be filled in until then."""
    part: list[str] = []
    for piece in _pieces(name, {"PAUSE": PAUSE, **context}):
        before, paused, after = piece.partition(PAUSE)
        part.append(before)
        if paused:
            yield "".join(part)
            part = [after]
    yield "".join(part)
