"""Particles as a source of images and optics, whatever file they come from, and their way to the model."""

from cryohydra.data.loader import PreparedImages as PreparedImages
from cryohydra.data.loader import shuffled_batches as shuffled_batches
from cryohydra.data.normalisation import Normalisation as Normalisation
from cryohydra.data.normalisation import measure_normalisation as measure_normalisation
from cryohydra.data.particles import ParticleSet as ParticleSet
from cryohydra.data.particles import open_particles as open_particles
from cryohydra.data.source import ParticleSource as ParticleSource
from cryohydra.data.sources import ArraySource as ArraySource
from cryohydra.data.sources import StackSource as StackSource
from cryohydra.data.sources import Subset as Subset
