"""A client of a saescope server."""

from saescope_client.client import Client
from saescope_client.errors import Refused, Unreachable
from saescope_client.shapes import SAE, Example, Feature, FeatureRow, Hit

__all__ = ["SAE", "Client", "Example", "Feature", "FeatureRow", "Hit", "Refused", "Unreachable"]
__version__ = "0.1.0"
