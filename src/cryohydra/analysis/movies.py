"""Moving pictures: MP4 where ffmpeg is installed, GIF otherwise."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically

FRAMES_PER_SECOND = 10


def write_movie(stem: Path, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Path:
    """Write frames of red, green and blue from 0 to 255, there and back again, to be looped.

    Args:
        stem: Path without the ending, which depends on what there is to write with. Sides must be even for MP4.

    Returns:
        The file.

    Raises:
        UserError: If ffmpeg is there but fails.
    """
    cycle = [*frames, *frames[-2:0:-1]]
    ffmpeg = shutil.which("ffmpeg")
    path = stem.with_suffix(".gif" if ffmpeg is None else ".mp4")
    with write_atomically(path) as temporary:
        if ffmpeg is None:
            first, *others = [Image.fromarray(frame).quantize(128, dither=Image.Dither.NONE) for frame in cycle]
            duration = round(1000 / FRAMES_PER_SECOND)
            first.save(temporary, "gif", save_all=True, append_images=others, duration=duration, loop=0)
        else:
            _encode(ffmpeg, temporary, cycle)
    return path


def _encode(ffmpeg: str, path: Path, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> None:
    height, width = frames[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FRAMES_PER_SECOND), "-i", "-"]
    # yuv420p and faststart: what presentations and browsers play.
    result = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-y", str(path)]
    pixels = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    done = subprocess.run([ffmpeg, "-loglevel", "error", *source, *result], input=pixels, capture_output=True)
    if done.returncode:
        raise UserError(
            f"ffmpeg could not write {path.name} ({done.stderr.decode(errors='replace').strip()}); "
            "repair it, or take it off PATH to have GIF files instead."
        )
