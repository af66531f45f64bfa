"""Names of all attributes of a study and its trials: those that older versions wrote, too."""

# Of a trial

ARCHITECTURE = "architecture"
"""Axes of the student, as `Architecture.to_dict` gives them."""
PARAMETERS = "parameters"
"""Parameters of the student."""
ANCHOR = "anchor"
"""Name of the anchor that the architecture is; absent from a sampler's proposal."""
MEMBER = "member"
"""Name of the family's member that the trial is of; absent where there is no family."""
DRIVER = "driver"
"""Token of the driver that runs the trial."""
ORIGIN = "origin"
"""Number of the first trial of those that continue one another; absent from the first itself."""
CONTINUES = "continues"
"""Number of the interrupted trial that this one goes on with."""
INTERRUPTIONS = "interruptions"
"""How often the trial was interrupted, stops by the user not counted."""
ERROR = "error"
"""Why the trial failed."""
INTERRUPTED = "interrupted: "
"""Begins that of a trial whose driver ended, and that is put back."""
NOT_CONTINUED = (DRIVER, ERROR)
"""Attributes that a continuation does not take over."""
PROGRESS = "progress"
"""Reports so far: tokens, seconds, curve. One attribute, since each is a transaction."""
SHOWN = ("kl", "ce", "top1_agreement", "tokens", "seconds")
"""Figures of the progress that stand beside an ended trial, for a dashboard."""
SEQUENCES = "kl_sequences"
"""Selection KL of each sequence at the end of the short run."""
ZERO_SHOT = "zero_shot"
"""KL before training, where it was scored."""

# Of a study

FINGERPRINT = "fingerprint"
"""Everything that the study's results depend on, by name."""
PREPARATION_SECONDS = "preparation_seconds"
"""Seconds that all starts of the study spent on preparation, of all slots together."""
LIBRARY_SECONDS = "library_seconds"
"""Seconds, times the slots, that all starts spent on training and scoring blocks of layers."""
TRIAL_PHASES = "trial_phases"
"""Seconds, slots and busy seconds of the trials of each start."""
PLANNED_SPEED = "planned_speed"
"""FLOP/s of a run, by a few steps before the first trial."""
RESULTS = "results"
"""Results of the finished search, as results.json has them, and the layers that students kept; of a
member of a family its name follows after a colon."""
TEACHER = "teacher"
"""Name, sizes and parameters of the teacher."""
PER_LAYER = "per_layer:"
"""Begins the names of a round of combinations of blocks: its number follows, and in one name for
each the place of a combination that becomes a trial."""
LEASE = "driver:"
"""Begins the name of a driver's lease; its token follows. Each driver writes its own attribute
only, so no renewal can undo another's."""
