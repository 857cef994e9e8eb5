"""docs/pages.md names every field that pages show, and no other."""

import re
import typing

from pydantic import BaseModel

from app.web.account_contexts import AccountPage, AdminPage, AuditPage
from app.web.alike_contexts import AlikePage
from app.web.ask_contexts import AskedPage
from app.web.browse_contexts import LatentPage
from app.web.circuit_contexts import CircuitPage, CircuitsPage
from app.web.compare_contexts import ComparePage
from app.web.contexts import FeaturePage, HomePage, SAEPage
from app.web.differences_contexts import ContrastPage, TwoPromptsPage
from app.web.evaluation_contexts import EvaluationsPage
from app.web.example_page import ExamplePage
from app.web.explain_contexts import ScorePage
from app.web.graph_contexts import GraphPage, GraphsPage
from app.web.heads import HeadsPage
from app.web.inspect_contexts import InspectPage
from app.web.intervene_contexts import AttributePage, IntervenePage
from app.web.list_contexts import ListPage, ListsPage, NotesPage, SharedPage
from app.web.map_contexts import MapGroupPage, MapPage
from app.web.preview_contexts import FeatureCard
from app.web.rendering import ROOT
from app.web.run_contexts import HarvestsPage, RunPage
from app.web.search_contexts import SearchPage
from app.web.training_contexts import TrainingPage, TrainingRunPage

SHOWN = (
    FeaturePage, ExamplePage, SAEPage, LatentPage, ComparePage, HomePage, FeatureCard, TwoPromptsPage, ContrastPage,
    HeadsPage, AlikePage, InspectPage, IntervenePage, AttributePage, HarvestsPage, RunPage, ScorePage, MapPage,
    MapGroupPage, ListsPage, ListPage, SharedPage, NotesPage, SearchPage, EvaluationsPage, CircuitsPage,
    CircuitPage, AskedPage, GraphsPage, GraphPage, AccountPage, AdminPage, AuditPage, TrainingPage, TrainingRunPage,
)  # fmt: skip


def contained(model):
    """The model and every model in its fields."""
    found, waiting = {}, [model]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind.__name__ not in found:
                found[kind.__name__] = kind
                waiting += [field.annotation for field in kind.model_fields.values()]
        else:
            waiting += typing.get_args(kind)
    return found


def documented(text):
    """The fields in the table under each model's heading."""
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)
    return {
        section.split("`")[1]: re.findall(r"^\| `(\w+)` \| .*\S.* \|$", section, flags=re.MULTILINE)
        for section in sections
        if re.match(r"`\w+`$", section, flags=re.MULTILINE)
    }


def test_every_field_of_the_pages_is_documented_and_no_other():
    told = documented((ROOT / "docs" / "pages.md").read_text())
    models = {name: kind for page in SHOWN for name, kind in contained(page).items()}
    assert {"FeaturePage", "Usage", "Example", "Metrics", "BrowseRow"} <= set(models)
    for name, kind in models.items():
        assert (name, sorted(told.get(name, []))) == (name, sorted(kind.model_fields))
    assert set(told) == set(models)
