"""Movies of what the page showed: MP4 where ffmpeg is installed, GIF otherwise."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cryohydra.errors import UserError
from cryohydra.io.atomic import write_atomically


def movie_suffix() -> str:
    """The kind of movie that this machine can write."""
    return ".mp4" if shutil.which("ffmpeg") else ".gif"


def write_movie(path: Path, frames: UInt8[np.ndarray, "v h w 3"], frames_per_second: int) -> None:
    """Write frames of red, green and blue, 0 to 255, forth and back; the suffix of the path says what kind.

    Raises:
        UserError: If ffmpeg fails.
    """
    there_and_back = np.concatenate([frames, frames[-2:0:-1]])
    with write_atomically(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(temporary, there_and_back, frames_per_second)
        else:
            first, *others = [Image.fromarray(frame).quantize(128) for frame in there_and_back]
            duration = round(1000 / frames_per_second)
            first.save(temporary, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _write_mp4(path: Path, frames: UInt8[np.ndarray, "v h w 3"], frames_per_second: int) -> None:
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # yuv420p wants even sides
    command = [
        "ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", str(frames_per_second), "-i", "-", "-pix_fmt", "yuv420p", "-f", "mp4", str(path),
    ]  # fmt: skip
    content = np.ascontiguousarray(frames[:, :height, :width]).tobytes()
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise UserError(f"ffmpeg could not write the movie ({said[-1]}); save the volumes instead, or mend ffmpeg.")
