"""Every key a user may set, in the groups in which configs.yaml shows them.

The text under a key is its explanation to the user, in configs.yaml and in the docs.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0)]
Optimizer = Literal["adam", "lbfgs"]


def _listed(value: Any) -> Any:
    """One path stands for a list of one."""
    return (value,) if isinstance(value, str | Path) else value


class Section(BaseModel):
    """A group of keys: frozen, nothing unknown in it, its keys explained."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class InputSettings(Section):
    """What the images are"""

    particles: Path | None = None
    """Particle images: .mrcs, .mrc, .txt (a list of stacks), .star (RELION 3.0 to 5) or .cs (cryoSPARC)."""
    ctf: Path | None = None
    """CTF parameters, a .pkl of nine columns. Not needed with .star or .cs, which hold them; given, it wins."""
    pose: Path | None = None
    """Known poses, a .pkl. Not needed with a .star or .cs that holds them; given, it wins."""
    dataset: str | None = None
    """A label of the catalogue that $DRGNAI_DATASETS names, or a .yaml file that describes one dataset."""
    datadir: Path | None = None
    """Folder to look in for the images that a .star or .cs names: by file name first, then by whole path."""
    ind: int | Path | None = None
    """Use only some images: a number n for the first n, or a .pkl with an array of row numbers."""
    downsample: Positive | None = None
    """Size in pixels to which images are cropped in Fourier space as they are read; as they are if not given."""
    labels: Path | None = None
    """True classes of the particles, a .pkl of whole numbers; used only to colour figures."""
    invert_data: Literal["auto"] | bool = "auto"
    """Whether to turn the sign of the images: true for white particles on dark. auto judges by the file and pixels."""
    norm_mean: float | None = None
    """Mean subtracted from the images; measured if not given."""
    norm_std: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation the images are divided by; measured if not given."""
    window_radius_gt_real: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Radius of the soft circular window on the images, as a fraction of half the box."""
    lazy: bool = False
    """Read images from disk as they are needed instead of holding all of them in memory."""
    shuffle: bool = True
    """Visit the images in a new random order in every epoch."""


class KnownSettings(Section):
    """What is known beforehand"""

    use_gt_poses: bool = False
    """Keep the given poses fixed: no pose search and no refinement of poses (implies use_gt_trans)."""
    refine_gt_poses: bool = False
    """Start from the given poses and refine them: no pose search."""
    use_gt_trans: bool = False
    """Take the shifts from the given poses but search the rotations."""
    no_trans: bool = False
    """The images are centred already: neither search nor refine shifts."""
    initial_conf: Path | None = None
    """Conformations to start from, a .pkl of shape (particles, z_dim), or (particles, n_classes, z_dim)."""
    initial_volumes: Annotated[tuple[Path, ...], BeforeValidator(_listed)] | None = None
    """Maps to start classes from, a list of .mrc paths: the first is class 0's, and classes without one are free.
    A map is taken in the pixels of its header to those of the images, low-passed to what ab initio finds (10 Fourier
    pixels), and scaled to the images; its hand stays. In ab initio the maps are held and the free classes climb on what
    they do not explain; afterwards all classes move. With given poses (refine, fixed) it is a map for each class, in
    the frame of the poses."""
    initial_labels: Path | None = None
    """Classes that are known of some particles, a .pkl of whole numbers: the class from 0, or -1 where it is not known.
    Where poses are given, or the particle file holds some, the labelled particles of a class make the map that it
    starts from, as one of initial_volumes, which goes before. Where not, they count for that class alone in ab initio.
    Afterwards every particle goes where it fits best."""
    load: Path | None = None
    """A checkpoint weights.N.pkl to continue from. `drgnai train OUT --load` finds the last one by itself."""


class MixtureSettings(Section):
    """The mixture"""

    n_classes: Positive = 1
    """Number of classes K; each is a structure with its own motion. auto: start with many and prune them."""
    prune_classes: bool = False
    """Take away the classes that images can do without, once the search has settled; n_classes: auto sets it."""
    z_dim: Count = 4
    """Dimensions of the conformation z within a class; 0 for rigid classes."""
    likelihood: Literal["gaussian", "pixel_mean"] = "gaussian"
    """gaussian: sum over frequencies with the noise measured from the images, all poses weighed.
    pixel_mean: the published one, a mean over pixels with std_noise, at the best pose only."""
    class_weights: Literal["posterior", "learned"] = "posterior"
    """posterior: class probabilities follow from the evidence. learned: the published table of free scores."""
    std_noise: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the likelihood: above 1 makes class probabilities softer. 1 for honest probabilities."""
    std_z_init: Annotated[float, Field(ge=0)] = 0.1
    """Spread of the conformations at the start."""
    variational_het: bool = False
    """Give each conformation a Gaussian posterior instead of a point."""
    beta_conf: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence of variational conformations from the standard normal."""
    trans_l1_regularizer: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the sum of absolute shifts in the loss."""
    l2_smoothness_regularizer: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared prediction times frequency in the loss."""


class FieldSettings(Section):
    """The neural field of each class"""

    field: Literal["mlp", "voxel"] = "mlp"
    """mlp: the published residual network on random Fourier features. voxel: a plain grid (needs z_dim 0)."""
    explicit_volume: bool = False
    """The older way to write `field: voxel`."""
    hypervolume_layers: Positive = 3
    """Hidden layers of the network."""
    hypervolume_dim: Positive = 256
    """Units per hidden layer."""
    hypervolume_domain: Literal["hartley"] = "hartley"
    """The transform in which fields live."""
    pe_type: Literal["gaussian"] = "gaussian"
    """Encoding of a frequency: random Gaussian Fourier features."""
    pe_dim: Positive = 64
    """Size of the encoding: 3 pe_dim random features."""
    feat_sigma: Annotated[float, Field(gt=0)] = 0.5
    """Spread of the random features: 0.5 covers a particle that fills half the box."""
    pe_type_conf: Literal["geom"] | None = None
    """Encoding of the conformation: none, or geometric (sines and cosines of growing frequency)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 on a GPU that has it. Poses are compared in float32 in the end."""


class EncoderSettings(Section):
    """The image encoder for conformations"""

    use_conf_encoder: bool = False
    """Predict conformations from the images with a convolutional network instead of a table."""
    depth_cnn: Positive = 5
    """Convolutional blocks; each halves the image."""
    channels_cnn: Positive = 32
    """Channels of the first block."""
    kernel_size_cnn: Positive = 3
    """Width of the convolutions, in pixels."""
    resolution_encoder: Positive | None = None
    """Size to which images are reduced for the encoder, in pixels; whole images if not given."""


class StageSettings(Section):
    """How long each stage may last"""

    n_imgs_pretrain: int = 10000
    """Images that begin in random poses and make the first maps, at most: ab initio takes 2000, or 1000 for each class
    if that is more, or all if there are fewer; below 0 for no other bound. With the published engine, visits in random
    poses, below 0 for one whole epoch."""
    pretrain_with_gt_poses: bool = False
    """Use the given poses, not random ones, in those first visits."""
    n_imgs_pose_search: Count = 500_000
    """Image visits of the stages that search poses, an upper bound: they end when they have converged. Maps that climb
    anew in place of classes in doubt come on top.
    In epochs: max(2, n // number of particles + 1) if above 0."""
    epochs_sgd: Count = 100
    """Epochs of refinement after the search, an upper bound: it ends when it has converged."""
    pose_only_phase: Count = 0
    """Image visits at the start of refinement during which conformations stay as they are."""


class SearchSettings(Section):
    """The search for poses"""

    search: Literal["sliced", "exact"] = "sliced"
    """sliced: each field is rendered once and slices are cut from it, fast. exact: the network at every candidate."""
    l_start: Positive = 12
    """Band of the start with random poses of the published engine, in Fourier pixels; no effect otherwise."""
    l_end: Positive = 32
    """Highest frequency of maps, in search and refinement, in Fourier pixels: 32 is a thirty-second of the box."""
    n_iter: Count = 4
    """Refinements of the grid, at most; each halves its step, and the search stops where steps between points do."""
    base_healpy: Count = 2
    """Level of the first grid of rotations: 1 has 576, 2 has 4608, 3 has 36864."""
    n_kept_poses: Positive = 8
    """Candidates carried from the first level to the next, per image, at least; eight times as many if poses or classes
    stay in doubt."""
    t_extent: Annotated[float, Field(ge=0)] = 20.0
    """Largest shift searched in x and in y, in pixels; 0 for no search of shifts."""
    t_n_grid: Positive = 7
    """Sets the number of shifts at the first level, per axis: t_n_grid * 2^(base_healpy - 1); an upper bound."""
    t_x_shift: float = 0.0
    """Centre of the searched shifts in x, in pixels."""
    t_y_shift: float = 0.0
    """Centre of the searched shifts in y, in pixels."""
    no_trans_search_at_pose_search: bool = False
    """Search only rotations; shifts start from what is given, or zero, and are still refined."""


class BandSettings(Section):
    """The band of frequencies that is compared"""

    output_mask: Literal["circ", "frequency_marching"] = "circ"
    """circ: refinement compares all that the maps know. frequency_marching: its band grows from l_start_fm."""
    l_start_fm: Positive = 12
    """Highest frequency where marching starts, in Fourier pixels."""
    add_one_frequency_every: Positive = 100_000
    """Image visits after which marching adds a frequency during pose search."""
    n_frequencies_per_epoch: Positive = 10
    """Frequencies that marching adds per epoch of refinement."""
    max_freq: Positive | None = None
    """Highest frequency ever compared, in Fourier pixels; half the box if not given."""


class OptimizationSettings(Section):
    """Optimisation"""

    batch_size_hps: Positive = 8
    """Images per batch in the search for poses."""
    batch_size_sgd: Positive = 256
    """Images per batch in refinement."""
    batch_size_known_poses: Positive = 32
    """Images per batch where poses are fixed."""
    lr: Rate = 1e-4
    """Learning rate of the fields."""
    lr_pose_table: Rate = 1e-3
    """Learning rate of the poses."""
    lr_conf_table: Rate = 1e-2
    """Learning rate of the conformations."""
    lr_conf_encoder: Rate = 1e-4
    """Learning rate of the encoder."""
    lr_score_table: Rate = 1e-2
    """Learning rate of the class scores, where class_weights is learned."""
    wd: Rate = 0.0
    """Weight decay of the encoder."""
    hypervolume_optimizer_type: Literal["adam"] = "adam"
    """Optimiser of the fields."""
    pose_table_optimizer_type: Optimizer = "adam"
    """Optimiser of the poses: adam or lbfgs."""
    conf_table_optimizer_type: Optimizer = "adam"
    """Optimiser of the conformations: adam or lbfgs."""
    conf_encoder_optimizer_type: Literal["adam"] = "adam"
    """Optimiser of the encoder."""
    score_table_optimizer_type: Optimizer = "adam"
    """Optimiser of the class scores: adam or lbfgs."""


class TiltSettings(Section):
    """Tilt series"""

    subtomogram_averaging: bool = False
    """The images are tilt series: rows with one rlnGroupName are tilts of one particle."""
    n_tilts: Positive = 11
    """Tilts used of each particle, those of the lowest dose first."""
    dose_per_tilt: Annotated[float, Field(ge=0)] | None = None
    """Exposure per tilt in electrons per square angstrom; from the .star file if not given."""
    angle_per_tilt: float = 3.0
    """Degrees between tilts, for a dose-symmetric scheme; used where the .star file has no angles."""
    n_tilts_pose_search: Positive | None = None
    """Tilts used in the search for poses; n_tilts if not given."""
    average_over_tilts: bool = False
    """Give the encoder and search the mean over tilts (needs an odd n_tilts_pose_search)."""
    tilt_axis_angle: float = 0.0
    """Direction of the tilt axis in the images, in degrees."""
    dose_exposure_correction: bool = True
    """Damp high frequencies by the dose a tilt has had, and tilts by the cosine of their angle."""


class HouseSettings(Section):
    """Saving and running"""

    log_interval: Positive = 10_000
    """Image visits between entries of the learning curve."""
    log_heavy_interval: Count = 5
    """Epochs between checkpoints with maps and figures; 0 for none but those that end a stage, without figures."""
    verbose_time: bool = False
    """Write to the log how long each part of a step takes."""
    seed: Annotated[int, Field(ge=-1, lt=2**32)] = -1
    """Seed of everything random; -1 draws one, which train-configs.yaml records."""
    color_palette: str | None = None
    """Colours of the latent space by the order of particles: rainbow, or any other word for a linear scale."""
    multigpu: bool = False
    """Train in as many processes as there are GPUs, each of which looks at its share of the images."""


SECTIONS: tuple[type[Section], ...] = (
    InputSettings,
    KnownSettings,
    MixtureSettings,
    FieldSettings,
    EncoderSettings,
    StageSettings,
    SearchSettings,
    BandSettings,
    OptimizationSettings,
    TiltSettings,
    HouseSettings,
)

RETIRED = {
    "server": "'server' never did anything.",
    "outdir": "'outdir' is the folder given on the command line; results go to OUT/out.",
    "relion31": "'relion31' is not needed: the version of a .star file is seen from its contents.",
    "num_workers": "'num_workers' is not needed: images are read and transformed as they are used.",
    "max_threads": "'max_threads' is not needed: images are transformed as they are used.",
    "fast_dataloading": "'fast_dataloading' is not needed: loading is always the fast one.",
    "shuffler_size": "'shuffler_size' is not needed: any order of images can be read directly.",
    "test_installation": "'test_installation' is now the command `drgnai test`.",
}
"""Keys that are accepted and do nothing, with the sentence that says so."""

INERT = {
    "shuffle": "images are visited in a new random order in every epoch",
    "t_n_grid": "the step of the shifts follows from the band, a quarter of its shortest wave",
    "add_one_frequency_every": "the band of the pose search grows as far as the maps are known",
    "score_table_optimizer_type": "class scores move by Adam",
    "pretrain_with_gt_poses": "no stage begins with random poses where poses are given",
    "n_tilts_pose_search": "poses of tilt series are not searched yet",
    "average_over_tilts": "poses of tilt series are not searched yet",
    "tilt_axis_angle": "poses of tilt series are given for each tilt",
    "verbose_time": "training.log tells how long each stage took",
}
"""Keys whose value changes nothing, with what happens instead; said if a user gives another than the default."""
