"""The errors users can meet: one sentence each, a stable code, and the HTTP status that fits.

Every refusal names the thing, the value and the remedy. The web layer shows these as a page, a fragment or
JSON ``{code, message, detail}``; the CLI prints the message on one line and exits with status 1.
"""

import re
from typing import Any

_LONG = re.compile(r"\S{240,}")


def sentence(text: str) -> str:
    """``text`` as it can be shown anywhere: on one line, without what moves a cursor or cannot be encoded (U+FFFD), and
    the middle left out of what is longer than a line, such as a path of thousands of characters."""
    shown = "".join(ch if ch.isprintable() else " " if ch.isspace() else "\N{REPLACEMENT CHARACTER}" for ch in text)
    return _LONG.sub(lambda found: f"{found[0][:120]}…{found[0][-80:]}", shown)


def _encodable(value: Any) -> Any:
    """``value`` with what has no UTF-8, half of a surrogate pair, as a question mark."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


class SaescopeError(Exception):
    """Base of every refusal. ``detail`` holds the values named in the message, for programs."""

    code = "error"
    status = 500

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = sentence(message)
        self.detail = {name: _encodable(value) for name, value in detail.items()}

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "detail": self.detail}


class InvalidSAE(SaescopeError):
    code = "sae_invalid"
    status = 422


class UnknownSAE(SaescopeError):
    code = "sae_unknown"
    status = 404


class LatentOutOfRange(SaescopeError):
    code = "latent_out_of_range"
    status = 404


class InvalidEdit(SaescopeError):
    code = "edit_invalid"
    status = 422


class EditUnsupported(SaescopeError):
    code = "edit_unsupported"
    status = 501


class SubjectUnfit(SaescopeError):
    code = "subject_unfit"
    status = 422


class UnknownCircuit(SaescopeError):
    code = "circuit_unknown"
    status = 404


class AttributionUnsupported(SaescopeError):
    code = "attribution_unsupported"
    status = 501


class PageNotFound(SaescopeError):
    code = "not_found"
    status = 404


class UnsupportedFormat(SaescopeError):
    code = "format_unsupported"
    status = 501


class BadRequest(SaescopeError):
    code = "bad_request"
    status = 422


class ContextsMissing(SaescopeError):
    code = "contexts_missing"
    status = 409


class TextTooLong(SaescopeError):
    code = "text_too_long"
    status = 413


class EmptyText(SaescopeError):
    code = "text_empty"
    status = 422


class SubjectUnavailable(SaescopeError):
    code = "subject_unavailable"
    status = 503


class CorpusUnavailable(SaescopeError):
    code = "corpus_unavailable"
    status = 422


class PackageUnavailable(SaescopeError):
    code = "package_unavailable"
    status = 503


class HubUnavailable(SaescopeError):
    code = "hub_unavailable"
    status = 503


class DatabaseUnavailable(SaescopeError):
    code = "database_unavailable"
    status = 503


class DiskFull(SaescopeError):
    code = "disk_full"
    status = 507


class OutOfMemory(SaescopeError):
    code = "out_of_memory"
    status = 507


class HarvestRunning(SaescopeError):
    code = "harvest_running"
    status = 409


class PortInUse(SaescopeError):
    code = "port_in_use"
    status = 500


class AssetsMissing(SaescopeError):
    code = "assets_missing"
    status = 500


class InvalidSetting(SaescopeError):
    code = "setting_invalid"
    status = 500


class UnknownRun(SaescopeError):
    code = "run_unknown"
    status = 404


class RunEnded(SaescopeError):
    code = "run_ended"
    status = 409


class UnknownInspection(SaescopeError):
    code = "inspection_unknown"
    status = 404


class UnknownGraph(SaescopeError):
    code = "graph_unknown"
    status = 404


class UnknownList(SaescopeError):
    code = "list_unknown"
    status = 404


class UnknownItem(SaescopeError):
    code = "item_unknown"
    status = 404


class NoteChanged(SaescopeError):
    code = "note_changed"
    status = 409


class RunOpen(SaescopeError):
    code = "run_open"
    status = 409


class ExplainLimit(SaescopeError):
    code = "explain_limit"
    status = 429


class DecoderUnavailable(SaescopeError):
    code = "decoder_unavailable"
    status = 422


class MapImpossible(SaescopeError):
    code = "map_impossible"
    status = 422


class EmbeddingsUnavailable(SaescopeError):
    code = "embeddings_unavailable"
    status = 503


class EmbeddingRunning(SaescopeError):
    code = "embedding_running"
    status = 409


class MapRunning(SaescopeError):
    code = "map_running"
    status = 409


class ExplainRunning(SaescopeError):
    code = "explain_running"
    status = 409


class UnknownExplanation(SaescopeError):
    code = "explanation_unknown"
    status = 404


class UnknownMap(SaescopeError):
    code = "map_unknown"
    status = 404


class TileOutOfRange(SaescopeError):
    code = "tile_out_of_range"
    status = 404


class BudgetSpent(SaescopeError):
    code = "budget_spent"
    status = 402


class EndpointRefused(SaescopeError):
    code = "llm_refused"
    status = 502


class EndpointSilent(SaescopeError):
    code = "llm_unavailable"
    status = 503


class TooLarge(SaescopeError):
    code = "too_large"
    status = 422


class ServerBusy(SaescopeError):
    code = "busy"
    status = 503


class EngineBusy(SaescopeError):
    code = "engine_busy"
    status = 503


class ClientBusy(SaescopeError):
    code = "client_busy"
    status = 429


class ClientRate(SaescopeError):
    code = "client_rate"
    status = 429


class BodyTooLong(SaescopeError):
    code = "body_too_long"
    status = 413


class EngineStopped(SaescopeError):
    code = "engine_stopped"
    status = 503


class EngineUnavailable(SaescopeError):
    code = "engine_unavailable"
    status = 503


class TokenWrong(SaescopeError):
    code = "token_wrong"
    status = 401


class MetricsClosed(SaescopeError):
    code = "metrics_closed"
    status = 401


class PathRefused(SaescopeError):
    code = "path_refused"
    status = 403


class CrossSite(SaescopeError):
    code = "cross_site"
    status = 403


class BackupInvalid(SaescopeError):
    code = "backup_invalid"
    status = 422


class BackupFailed(SaescopeError):
    code = "backup_failed"
    status = 500


class UnknownHost(SaescopeError):
    code = "host_unknown"
    status = 421


class LoginNeeded(SaescopeError):
    code = "login_needed"
    status = 401


class LoginRefused(SaescopeError):
    code = "login_refused"
    status = 403


class LoginThrottled(SaescopeError):
    code = "login_throttled"
    status = 429


class Forbidden(SaescopeError):
    code = "forbidden"
    status = 403


class LinkGone(SaescopeError):
    code = "link_gone"
    status = 410


class NameTaken(SaescopeError):
    code = "name_taken"
    status = 409


class UnknownAccount(SaescopeError):
    code = "account_unknown"
    status = 404


class QuotaReached(SaescopeError):
    code = "quota_reached"
    status = 429


class QueryTooLong(SaescopeError):
    code = "query_too_long"
    status = 422


class AddressRefused(SaescopeError):
    code = "address_refused"
    status = 403
