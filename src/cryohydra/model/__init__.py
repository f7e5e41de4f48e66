"""The mixture of fields, what is known of each particle, and how both are saved."""

from cryohydra.model.mixture import Mixture as Mixture
from cryohydra.model.mixture import build_mixture as build_mixture
