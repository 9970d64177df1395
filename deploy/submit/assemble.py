"""A job from the command line."""

import argparse

from deploy.submit.environment import variables_like
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources
from deploy.submit.names import check_name, made_valid
from deploy.submit.options import parse_environment, parse_pairs, parse_secrets, parse_toleration, parse_volume
from deploy.submit.run_check import check_with_trainer
from deploy.submit.targets import CONTAINERS_ALWAYS, has_paths_of_its_own

LEAST_GRACE_SECONDS = 60  # half of it is the launcher's own margin


def assemble(target: str, arguments: argparse.Namespace) -> Job:
    """The job that ``arguments`` describe, its configuration checked by the trainer.

    Raises SubmitError, one line, for whatever cannot be.
    """
    ranks_per_node = _check_numbers(arguments)
    if arguments.name is not None:
        check_name(arguments.name)
    volumes = tuple(map(parse_volume, arguments.volume))
    tolerations = tuple(map(parse_toleration, arguments.toleration))
    selector = parse_pairs("--node-selector", arguments.node_selector)
    environment = parse_environment(arguments.env)
    secrets = parse_secrets(arguments.secret)
    passed_through = variables_like(arguments.pass_env)
    checked = check_with_trainer(
        arguments.config,
        arguments.overrides,
        world_size=arguments.nodes * ranks_per_node,
        with_data=not (arguments.no_data or has_paths_of_its_own(target, arguments.image)),
        in_containers=target in CONTAINERS_ALWAYS,  # those of Slurm share their machine's network
    )
    gpus = arguments.gpus_per_node is not None
    if gpus and checked.device == "cpu":
        raise SubmitError("--gpus-per-node: run.device is 'cpu'; use --ranks-per-node, or --set run.device=cuda")
    if checked.device.startswith("cuda") and not gpus and target != "local":
        raise SubmitError(f"run.device is '{checked.device}': say how many GPUs a node gives, --gpus-per-node G")
    return Job(
        name=arguments.name or made_valid(checked.output.name),
        config=arguments.config.absolute(),
        config_text=checked.toml,
        output=checked.output,
        nodes=arguments.nodes,
        ranks_per_node=ranks_per_node,
        gpus=gpus,
        image=arguments.image,
        queue=arguments.queue,
        resources=Resources(arguments.cpus, arguments.memory, arguments.shm),
        volumes=volumes,
        tolerations=tolerations,
        node_selector=selector,
        environment=environment,
        passed_through=passed_through,
        secrets=secrets,
        grace_seconds=arguments.grace,
        metrics_port=checked.metrics_port,
        deadline_seconds=arguments.time_limit,
    )


def _check_numbers(arguments: argparse.Namespace) -> int:
    """Ranks of each node."""
    ranks = 1
    for option, value in (
        ("--nodes", arguments.nodes),
        ("--gpus-per-node", arguments.gpus_per_node),
        ("--ranks-per-node", arguments.ranks_per_node),
        ("--time-limit", arguments.time_limit),
    ):
        if value is not None and value < 1:
            raise SubmitError(f"{option} {value}: give at least 1")
    for value in (arguments.gpus_per_node, arguments.ranks_per_node):
        ranks = value or ranks
    if arguments.grace < LEAST_GRACE_SECONDS:
        raise SubmitError(f"--grace {arguments.grace}: a checkpoint must fit; give at least {LEAST_GRACE_SECONDS}")
    if arguments.time_limit is not None and arguments.time_limit <= arguments.grace:
        raise SubmitError(
            f"--time-limit {arguments.time_limit} leaves nothing to train beside --grace {arguments.grace}: "
            "make one longer or the other shorter"
        )
    return ranks
