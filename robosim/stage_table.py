"""Every stage: which command runs it, what it reads, and what it leaves in a run folder."""

from __future__ import annotations

from robosim.stage_runner import Stage

STAGES = (
    Stage(
        name="collect",
        title="MuJoCo episodes, as video with commands",
        command="collect",
        schema="robosim.physics.collection.collect:CollectConfig",
        function="robosim.pipeline:collect_clips",
        inputs=(),
        folders=("dataset", "clips"),
        outputs=("dataset/meta/**/*", "dataset/data/**/*", "dataset/videos/**/*", "clips/index.json"),
        shared=("task", "robot", "data"),
        instead="robosim import SRC",
    ),
    Stage(
        name="tokenizer",
        title="frames to tokens, from video only",
        command="train",
        section="tokenizer",
        fixed=("stage=tokenizer",),
        schema="robosim.training.stages:TokenizerTraining",
        function="robosim.training.stages:train_tokenizer",
        inputs=("collect",),
        folders=("tokenizer",),
        outputs=("tokenizer/model.*",),
        shared=("model",),
    ),
    Stage(
        name="latent_action",
        title="what changes between two frames, from video only",
        command="train",
        section="latent_action",
        fixed=("stage=latent_action",),
        schema="robosim.training.stages:LatentActionTraining",
        function="robosim.training.stages:train_latent_action",
        inputs=("collect", "tokenizer"),
        folders=("latent_action",),
        outputs=("latent_action/model.*",),
        shared=("model",),
    ),
    Stage(
        name="dynamics",
        title="the next frame's tokens: the learned simulator",
        command="train",
        section="dynamics",
        fixed=("stage=dynamics",),
        schema="robosim.training.stages:DynamicsTraining",
        function="robosim.training.stages:train_dynamics",
        inputs=("collect", "tokenizer", "latent_action"),
        folders=("dynamics",),
        outputs=("dynamics/model.*",),
        shared=("model",),
    ),
    Stage(
        name="adapt",
        title="joint commands to latent actions, from a few labels",
        command="adapt",
        schema="robosim.training.adapt:AdaptConfig",
        function="robosim.training.adapt:adapt",
        inputs=("collect", "tokenizer", "latent_action"),
        folders=("adapter",),
        outputs=("adapter/adapter.*",),
    ),
    Stage(
        name="pretrain",
        title="policies inside the learned simulator",
        command="pretrain",
        schema="robosim.training.imagination:PretrainConfig",
        function="robosim.training.imagination:pretrain",
        inputs=("collect", "tokenizer", "latent_action", "dynamics", "adapt"),
        folders=("policy",),
        outputs=("policy/*/pretrained_model/*",),
        shared=("task",),
    ),
    Stage(
        name="compare",
        title="the same policies in both simulators",
        command="compare",
        schema="robosim.evaluation.compare:CompareConfig",
        function="robosim.evaluation.compare:compare",
        inputs=("collect", "tokenizer", "latent_action", "dynamics", "adapt", "pretrain"),
        folders=("compare",),
        outputs=("compare/*",),
        shared=("task",),
    ),
    Stage(
        name="report",
        title="page, recording and summary",
        command="report",
        schema="robosim.pipeline:ReportConfig",
        function="robosim.pipeline:make_report",
        inputs=("collect", "tokenizer", "latent_action", "dynamics", "adapt", "pretrain", "compare"),
        folders=("report",),
        outputs=("report.html", "rollouts.rrd", "summary.json"),
    ),
)
IMPORT = Stage(
    name="import",
    title="recordings of any layout, as video with the labels they have",
    command="import",
    schema="robosim_datasets.importing.config:ImportConfig",
    function="robosim_datasets.importing.import_dataset:import_clips",
    inputs=(),
    folders=("dataset", "clips"),
    outputs=STAGES[0].outputs,
    check="robosim_datasets.importing.import_dataset:check_request",
)
MIX = Stage(
    name="mix",
    title="several datasets as one",
    command="train",
    schema="robosim_datasets.mixture:MixConfig",
    function="robosim.pipeline:mixed_clips",
    inputs=(),
    folders=("dataset", "clips"),
    outputs=("dataset/mixture.json", "clips/index.json"),
)
"""These two stand in for `collect`: they leave the same folders, with the manifest in the same place."""

NEEDED = {"adapt": "action", "pretrain": "environment_state"}
"""The label without which a stage, and those after it, have nothing to learn from."""

BY_NAME = {stage.name: stage for stage in (*STAGES, IMPORT, MIX)}
