"""Two saved views of an experiment: MLflow's table of runs shows no metrics until somebody picks columns.

The UI keeps saved views as tags of the experiment; names and state are those that MLflow 3.17 writes itself. Another
version that reads them otherwise shows its usual table.
"""

import json
from typing import Final

from mlflow import MlflowClient

MADE_TAG: Final = "knowrl.views"
"""Set once they are made, so that a view which somebody removed does not come back."""

VERSION: Final = "1"
VIEW_TAG: Final = "mlflow.sharedViewState."
ITERATIONS: Final = "knowrliterations"
"""Ids of the views, as the parameter ``viewStateShareKey`` of the page's address takes them."""
RUNS: Final = "knowrlruns"

BEST_COLUMN: Final = "tags.`knowrl.best`"

_BASE, _CHARACTER = 40, 7
"""Pixels of a column of metrics, so that its title can be read."""

_PARAMS: Final = (
    "model.path",
    "rl.algorithm",
    "rl.learning_rate",
    "rl.kl_coef",
    "consensus.reward.rule",
    "consensus.anchors.share",
    "warmup.epochs",
    "run.seed",
)


def make_views(client: MlflowClient, experiment: str, metrics: list[str]) -> None:
    """Make the views, unless they were made before.

    Args:
        client: Connected to the store.
        experiment: Id of the experiment.
        metrics: The columns of metrics.
    """
    if client.get_experiment(experiment).tags.get(MADE_TAG) == VERSION:
        return
    numbers = [f"metrics.`{name}`" for name in metrics]
    views = {
        # Sorted by time, MLflow would fold the iterations into their run.
        ITERATIONS: ("KnowRL iterations", "iteration", numbers[0], [BEST_COLUMN, *numbers, "attributes.`Dataset`"]),
        RUNS: (
            "KnowRL runs",
            "run",
            "attributes.start_time",
            [BEST_COLUMN, *numbers, *(f"params.`{name}`" for name in _PARAMS), "tags.`knowrl.model`"],
        ),
    }
    for key, (name, kind, order, columns) in views.items():
        state = {
            "searchFilter": f'tags."knowrl.kind" = "{kind}"',
            "orderByKey": order,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": {column: _BASE + _CHARACTER * len(column) for column in numbers},
            "runsHiddenMode": "FIRST_20_RUNS",
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": False,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        }
        view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
        client.set_experiment_tag(experiment, f"{VIEW_TAG}{key}", json.dumps(view))
    client.set_experiment_tag(experiment, MADE_TAG, VERSION)
