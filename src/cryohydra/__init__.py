"""Ab initio reconstruction of mixtures of flexible complexes from cryo-EM images."""

__version__ = "0.1.0"
