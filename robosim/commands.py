"""Every command of robosim: what it says of itself on its help page, and the function behind it."""

from __future__ import annotations

from robosim.manual import Command

SHARED = ("train",)
"""Commands that share their work among the processes of a `torchrun`."""

COMMANDS = (
    Command(
        name="demo",
        summary="the whole path: video, learned simulator, policy, check in MuJoCo",
        purpose="""Runs all eight stages in order: collect, tokenizer, latent_action, dynamics, adapt, pretrain,
            compare, report. The simulator's weights are those that come with the package where they fit, else it is
            trained. A finished stage is kept as long as its configuration and its inputs are the same; a
            half-trained one goes on where it stopped; whatever a changed key touches is made again. Every key of
            a stage's own command can be set below the stage's name, as in collect.episodes=20.""",
        reads="nothing but the shipped simulator: it makes its own video",
        makes="""a run folder with dataset/ (a LeRobotDataset), clips/, tokenizer/, latent_action/, dynamics/,
            adapter/, policy/, compare/, report.html, rollouts.rrd and summary.json""",
        examples=(
            "robosim demo",
            "robosim demo from_scratch=true",
            "robosim demo seed=1 out=runs/second",
            "robosim demo task=reach collect.episodes=60",
        ),
        next="open report.html in a browser; uv run rerun <run>/rollouts.rrd plays the recording",
        run="robosim.pipeline:demo",
    ),
    Command(
        name="collect",
        summary="MuJoCo episodes of a robot arm as a LeRobotDataset",
        purpose="""Scripted experts and failure-rich exploration act in MuJoCo, on all cores or on a Ray cluster; every
            episode is rendered and written with its commands, joints and outcomes, split into train and val. The
            frames are then decoded once into a clip store, which training reads. Finished episodes survive
            whatever interrupts it.""",
        reads="nothing",
        makes="dataset/ (LeRobotDataset v3 with meta/robosim.json) and clips/ in the run folder",
        examples=(
            "robosim collect",
            "robosim collect task=soft_push robot=panda episodes=50 seed=1 out=runs/push",
            "robosim collect task=suite data=suite variation=mild variation.size=[0.8,1.2]",
            "robosim collect tasks=[reach,soft_push] mix.noisy=0.2 launcher=ray",
        ),
        next="robosim train stage=tokenizer out=<the same run folder>",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="import",
        summary="recordings of any layout as a dataset and clips",
        purpose="""Brings in LeRobotDatasets (v2 and v3, from a folder or the Hugging Face Hub), RLDS/TFRecord as Open-X
            has it, ALOHA and robomimic HDF5, and folders of plain video without actions. The layout is guessed; what
            was found and what it becomes is printed before anything is written. Frames are chosen at `fps` and made
            square; damaged episodes are left out, each of them named. An interrupted import goes on.""",
        reads="SRC: a folder, a file, or a name on the Hub; nothing in it is changed",
        makes="dataset/ (LeRobotDataset v3, what the source said in meta/robosim.json) and clips/ in the run folder",
        examples=(
            "robosim import recordings/aloha out=runs/aloha",
            "robosim import bridge/1.0.0 source_fps=5 out=runs/bridge",
            "robosim import lerobot/pusht size=96",
            "robosim import videos cut=20 out=runs/videos",
        ),
        next="robosim data check <run>, robosim data show <run>, robosim train stage=tokenizer out=<run>",
        run="robosim.pipeline:stage_command",
        first="source",
        first_name="SRC",
    ),
    Command(
        name="export",
        summary="a dataset for stock LeRobot: lerobot-train and others read it",
        purpose="""Writes a LeRobotDataset v3 (H.264, 4:4:4) from a robosim dataset, with all or some of its episodes
            and cameras, and opens it with stock lerobot before it says done. Positions of objects, which only a
            simulator knows, are left out unless positions=true.""",
        reads="SRC: a run folder or its dataset",
        makes="a LeRobotDataset v3 in the folder out",
        examples=(
            "robosim export runs/both-tiny-s0 out=exported/both",
            "robosim export runs/both-tiny-s0/dataset split=train tasks=[reach] out=exported/reach",
        ),
        next="the lerobot-train command that is printed",
        run="robosim_datasets.exporting:export_command",
        first="source",
        first_name="SRC",
    ),
    Command(
        name="ship",
        summary="a trained simulator small enough to come with the package, with its card",
        purpose="""Saves a run's learned simulator in half precision, with held-out frames to start from, and beside it
            card.json: how video and weights were made, the held-out figures, what it can't do, and the SHA-256 of every
            file. What the run doesn't say is null there. Nothing is written where the weights would be larger than
            most_mb.""",
        reads="the learned simulator, adapter/, clips/ and the stages' manifests of the run folder that run= names",
        makes="a folder that robosim.load, robosim play and train init= open, by its path or, in the package, by name",
        examples=(
            "robosim ship run=runs/suite-tiny-s0 out=runs/tiny",
            "robosim ship run=runs/suite-tiny-s0 out=runs/tiny name=tiny starts=16 most_mb=20",
        ),
        next="robosim play run=<out>",
        run="robosim.evaluation.shipping:ship_command",
    ),
    Command(
        name="data check",
        summary="every fault of a dataset, by episode",
        purpose="""Reads every byte, row and frame, and prints one table of what is wrong: schema, shapes, types, values
            that aren't finite, time steps, frames against actions, limits, checksums, black, frozen or repeated video,
            splits that overlap, and files that are cut off or changed. Exit code 3 where there is a fault.""",
        reads="PATH: a run folder, a dataset, a clip store, or any source that import takes; nothing in it is changed",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim data check runs/both-tiny-s0",
            "robosim data check recordings/aloha out=faults.json",
        ),
        next="robosim data show <the same path>",
        run="robosim_datasets.checks.command:check_command",
        first="path",
        first_name="PATH",
    ),
    Command(
        name="data show",
        summary="any dataset in rerun, and as text",
        purpose="""Writes a rerun recording of a few episodes, with cameras, joints, actions, language and splits, and
            opens it where there is a display. The same is printed as text.""",
        reads="PATH: a run folder, a dataset, or any source that import takes",
        makes="show.rrd in the folder out",
        examples=(
            "robosim data show runs/both-tiny-s0",
            "robosim data show recordings/aloha episodes=2 open=false",
        ),
        next="uv run rerun <out>/show.rrd",
        run="robosim.viewer.dataset_view:show_command",
        first="path",
        first_name="PATH",
    ),
    Command(
        name="train",
        summary="one part of the learned simulator, from video only",
        purpose="""Trains the part that stage= names: the tokenizer (frames to tokens), the latent action model
            (what changed between two frames), or the dynamics (the next frame's tokens). No actions, states or
            rewards are read. Ctrl-C saves; the same command goes on to exactly the same weights.""",
        reads="clips/ in the run folder, or those of the runs that data= names, and the parts that were trained before",
        makes="tokenizer/, latent_action/ or dynamics/, and a column of the clip store",
        examples=(
            "robosim train stage=tokenizer model=nano",
            "robosim train stage=latent_action",
            "robosim train stage=dynamics out=runs/push device=cuda",
            "robosim train stage=tokenizer data=[bridge,suite] weights=[1,2] out=runs/mixed",
            "robosim train stage=dynamics model=tiny init=runs/suite-tiny-s0 out=runs/mine",
        ),
        next="the following stage; after dynamics: robosim adapt",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="adapt",
        summary="joint commands for the learned simulator, from a few labelled transitions",
        purpose="""Fits, on at most `labels` transitions with commands and states: command to latent action,
            latent action to command, a probe that reads joints and positions from a frame, and a judge of
            success. With init= the maps of another adapter are taken where they tell these labels better.""",
        reads="clips/, tokenizer/ and latent_action/ in the run folder; with init= the adapter/ of another",
        makes="adapter/",
        examples=(
            "robosim adapt",
            "robosim adapt labels=100 out=runs/push",
            "robosim adapt init=tiny out=runs/both-tiny-s0",
        ),
        next="robosim pretrain out=<the same run folder>, or robosim play where no positions are known",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="pretrain",
        summary="a policy trained inside the learned simulator",
        purpose="""Clones behaviour on latent actions, then improves by rollouts inside the learned simulator.
            MuJoCo isn't used. The result is a LeRobot checkpoint, which lerobot-eval opens.""",
        reads="clips/, the learned simulator and adapter/ in the run folder",
        makes="policy/<task>/pretrained_model/ for each task",
        examples=("robosim pretrain", "robosim pretrain task=reach out=runs/push"),
        next="robosim compare out=<the same run folder>",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="compare",
        summary="the same policy in the learned simulator and in MuJoCo",
        purpose="""Rolls each policy out from the same initial states in both simulators, with a random policy
            beside it as the floor, and replays held-out episodes by their recorded commands.""",
        reads="dataset/, the learned simulator, adapter/ and policy/ in the run folder",
        makes="compare/: rollouts and their statistics",
        examples=("robosim compare", "robosim compare episodes=200 out=runs/push"),
        next="robosim report out=<the same run folder>",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="evaluate",
        summary="how far the learned simulator can be trusted on held-out episodes",
        purpose="""Rolls the simulator out from true frames of held-out episodes, once by their latent actions and once
            by their recorded commands, and compares with the video: PSNR and SSIM on all and on moving pixels, drift
            of tool and object, the object's mask, and whether the latent actions steer at all. Beside it stand the
            tokenizer's ceiling, the last frame repeated, and the nearest training clip. Figures have intervals.""",
        reads="clips/, the learned simulator and adapter/ in the run folder, or the clips of the run that data= names",
        makes="evaluation/: evaluation.json, evaluation.html, strips/ and masks/ to look at",
        examples=(
            "robosim evaluate run=runs/suite-tiny-s0",
            "robosim evaluate run=runs/suite-tiny-s0 tasks=[reach] clips=24 out=runs/reach-figures",
            "robosim evaluate run=runs/suite-tiny-s0 data=runs/more temperature=0",
        ),
        next="open evaluation.html in a browser; robosim play drives the same simulator",
        run="robosim.evaluation.evaluate:evaluate_command",
    ),
    Command(
        name="report",
        summary="report, recording and summary of a run",
        purpose="""Turns the figures and rollouts of a finished run into one HTML page, a rerun recording with
            both cameras side by side, and a machine-readable summary.""",
        reads="the figures of all earlier stages, and compare/",
        makes="report.html, rollouts.rrd and summary.json in the run folder",
        examples=("robosim report", "robosim report out=runs/push"),
        next="uv run rerun <run>/rollouts.rrd",
        run="robosim.pipeline:stage_command",
    ),
    Command(
        name="replay",
        summary="a dataset's recorded commands once more, in MuJoCo",
        purpose="""Steps MuJoCo with the commands of recorded episodes and measures how far its joints and the recorded
            ones part. Episodes that robosim collected start with their things in place and must come out the same;
            of any other recording the arm alone is known.""",
        reads="a robosim dataset with joint positions at 10 Hz",
        makes="replay.json and replay.rrd in the folder out",
        examples=(
            "robosim replay dataset=runs/both-tiny-s0/dataset",
            "robosim replay dataset=runs/push/dataset robot=panda episodes=10 out=runs/trust",
        ),
        next="uv run rerun <out>/replay.rrd",
        run="robosim.viewer.replay:replay_command",
    ),
    Command(
        name="bench experts",
        summary="how often the scripted expert of every task and arm succeeds",
        purpose="""Plays the expert of every task on every arm from starts that no test has seen, without
            pictures, and prints success rates with their 95 % Wilson intervals as JSON; a table goes to stderr.""",
        reads="nothing",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim bench experts",
            "robosim bench experts task=reach robot=panda episodes=20 variation=mild out=experts.json",
        ),
        next="robosim collect task=suite, with experts that can be trusted",
        run="robosim.bench.experts:bench_experts",
    ),
    Command(
        name="bench physics",
        summary="how fast every task and arm is simulated and rendered",
        purpose="""Times physics, renderer and both together on one core and on all, compilation left out, and
            prints the figures with machine and versions as JSON; a table goes to stderr. sheet= draws every task
            and arm at five moments of an expert's episode.""",
        reads="nothing",
        makes="nothing but what it prints, unless out= and sheet= name files",
        examples=(
            "robosim bench physics",
            "robosim bench physics task=soft_push robot=panda out=physics.json sheet=sheet.png",
        ),
        next="look at the sheet",
        run="robosim.bench.physics:bench_physics",
    ),
    Command(
        name="bench data",
        summary="how fast clips are read, beside LeRobotDataset",
        purpose="""Draws random clips from the clip store and from stock LeRobotDataset, of the same episodes in the
            same run, one thread each, and measures what training waits for its batches. Prints JSON; a table goes to
            stderr.""",
        reads="nothing, or the run folder that path= names",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim bench data",
            "robosim bench data path=runs/both-tiny-s0 out=data.json",
        ),
        next="robosim train, which reads clips this way",
        run="robosim.bench.data:bench_data",
        first="path",
        first_name="PATH",
    ),
    Command(
        name="bench import",
        summary="how fast every layout is imported",
        purpose="""Writes one made-up recording in every layout that import takes, imports each, and prints episodes,
            frames, seconds and megabytes before and after as JSON; a table goes to stderr. sources= adds datasets of
            one's own.""",
        reads="nothing, or the datasets that sources= names",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim bench import",
            "robosim bench import layouts=[] sources=[bridge/1.0.0] out=import.json",
        ),
        next="robosim import",
        run="robosim.bench.importing:bench_import",
    ),
    Command(
        name="play",
        summary="a page on which you drive the learned arm",
        purpose="""Serves a page on this machine alone: eight latent actions on keys 1 to 8, a slider a joint, undo,
            branches, and MuJoCo beside it where the start is a MuJoCo state. Starts are frames of the dataset,
            MuJoCo tasks, and photos or sketches dropped onto the page. What you do can be recorded.""",
        reads="""the learned simulator, adapter/, clips/ and dataset/ of the run folder that run= names, or a saved or a
            shipped simulator, the latter by its name; without run= the first that is shipped""",
        makes="nothing until you record: then play-000/dataset (a LeRobotDataset) and play-000/play.rrd below out",
        examples=(
            "robosim play run=runs/both-tiny-s0",
            "robosim play run=runs/both-tiny-s0 rate=0 out=runs/played",
        ),
        next="uv run rerun <out>/play-000/play.rrd",
        run="robosim.viewer.play.command:play_command",
    ),
    Command(
        name="bench decode",
        summary="how many frames a second the learned simulator makes",
        purpose="""Times a rollout of the learned simulator, the decoding to pixels included, by refinement steps and
            batch, and beside it the paper's way (25 steps, every frame of the window computed anew). model= takes a
            preset with random weights, on which speed doesn't depend; run= a trained simulator. Prints JSON; a table
            goes to stderr.""",
        reads="nothing, or the learned simulator of the run folder that run= names",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim bench decode",
            "robosim bench decode model=nano steps=[1,4] paper=false out=decode.json",
        ),
        next="robosim play, to drive one",
        run="robosim.bench.decode:bench_decode",
    ),
    Command(
        name="bench train",
        summary="how many tokens a second a part trains on",
        purpose="""Times optimiser steps of one part of a preset on random data of the right shape, through the very
            loop that trains it, and prints tokens a second, the share of the device's arithmetic that is used (MFU)
            and the peak memory as JSON; a table goes to stderr.""",
        reads="nothing",
        makes="nothing but what it prints, unless out= names a file",
        examples=(
            "robosim bench train",
            "robosim bench train model=nano part=tokenizer precision=float32 out=train.json",
        ),
        next="robosim train, with the settings that were fastest",
        run="robosim.bench.training:bench_train",
    ),
)
