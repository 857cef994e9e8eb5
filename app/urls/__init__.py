"""The only place where a URL is built. Paths are stable: colleagues bookmark them."""

from app.urls.accounts import *  # noqa: F403
from app.urls.circuits import *  # noqa: F403
from app.urls.features import *  # noqa: F403
from app.urls.graphs import *  # noqa: F403
from app.urls.lists import *  # noqa: F403
from app.urls.live import *  # noqa: F403
from app.urls.maps import *  # noqa: F403
from app.urls.site import *  # noqa: F403
from app.urls.training import *  # noqa: F403
