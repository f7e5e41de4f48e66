"""What a finished run tells: volumes, conformations, classes and a report."""

from cryohydra.analysis.analyze import analyze as analyze
from cryohydra.analysis.options import AnalyzeOptions as AnalyzeOptions
from cryohydra.analysis.run import Run as Run
