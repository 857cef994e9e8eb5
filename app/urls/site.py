"""Addresses of the site itself, and of harvests and other jobs."""

from app.urls.parts import query_of


def home() -> str:
    return "/"


def harvests(*, cursor: str | None = None) -> str:
    """Every run of a harvest, and, by POST, the start of one."""
    return "/harvests" + query_of(cursor=cursor)


def harvests_json(*, cursor: str | None = None) -> str:
    return "/harvests.json" + query_of(cursor=cursor)


def harvest_run(run: int) -> str:
    return f"/harvests/{run}"


def harvest_run_json(run: int) -> str:
    return f"/harvests/{run}.json"


def stop_harvest(run: int) -> str:
    return f"/harvests/{run}/stop"


def resume_harvest(run: int) -> str:
    return f"/harvests/{run}/resume"


def forget_harvest(run: int) -> str:
    return f"/harvests/{run}/forget"


def jobs() -> str:
    """Where a job other than a harvest is started."""
    return "/jobs"


def api_docs() -> str:
    return "/api/docs"


def patterns() -> str:
    return "/patterns"


def static(path: str, version: str) -> str:
    return f"/static/{path}" + query_of(v=version)
