"""Searches for poses."""

from cryohydra.inference.pose_search.base import POSE_SEARCHES as POSE_SEARCHES
from cryohydra.inference.pose_search.base import PoseSearch as PoseSearch
from cryohydra.inference.pose_search.base import SearchPlan as SearchPlan
from cryohydra.inference.pose_search.coarse_to_fine import CoarseToFineSearch as CoarseToFineSearch
