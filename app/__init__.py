"""saescope: a self-hosted explorer for the features of sparse autoencoders."""

__version__ = "0.1.0"
