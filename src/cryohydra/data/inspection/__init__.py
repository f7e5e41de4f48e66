"""What can be told of a set of particles before anything is computed from it: all its problems at once."""

from cryohydra.data.inspection.findings import Finding as Finding
from cryohydra.data.inspection.inspect import Inspection as Inspection
from cryohydra.data.inspection.inspect import inspect_particles as inspect_particles
