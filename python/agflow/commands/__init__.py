"""Entry points of the ``agflow`` command: one function a command, JSON text in and out.

The keys of the options are the command's flags with underscores, null where a flag was not given.
"""

from agflow.commands.answers import (
    evaluate_answers as evaluate_answers,
    route_answers as route_answers,
)
from agflow.commands.benches import (
    bench_bottleneck as bench_bottleneck,
    bench_calibration as bench_calibration,
    bench_cascade as bench_cascade,
    bench_core as bench_core,
    bench_coverage as bench_coverage,
    bench_layers as bench_layers,
    bench_pruning as bench_pruning,
)
from agflow.commands.cascades import (
    predict as predict,
)
from agflow.commands.exports import (
    export as export,
)
from agflow.commands.models import (
    calibrate as calibrate,
    evaluate as evaluate,
    finetune as finetune,
    inspect_model as inspect_model,
    prune as prune,
)
from agflow.commands.workflows import (
    design as design,
    run as run,
    shrink as shrink,
)
