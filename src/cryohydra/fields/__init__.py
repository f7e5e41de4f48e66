"""Fields over spatial frequency, one per file, and how they are drawn on a lattice."""

from cryohydra.fields.base import FIELDS as FIELDS
from cryohydra.fields.base import Field as Field
from cryohydra.fields.base import FieldConfig as FieldConfig
from cryohydra.fields.base import FrozenSettings as FrozenSettings
from cryohydra.fields.mlp import MLPField as MLPField
from cryohydra.fields.mlp import MLPFieldConfig as MLPFieldConfig
from cryohydra.fields.render import LatticeRenderer as LatticeRenderer
from cryohydra.fields.render import render_hartley as render_hartley
from cryohydra.fields.render import render_map as render_map
from cryohydra.fields.voxel import VoxelField as VoxelField
from cryohydra.fields.voxel import VoxelFieldConfig as VoxelFieldConfig
