"""Train an agent: ``python train.py --config configs/v2g_ppo.yaml [key=value ...]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from qevgrid.agents import LEARNERS, RIVALS
    from qevgrid.runner.cli import Parser, add_overrides, describe, parse_args, run_cli
except ModuleNotFoundError as missing:
    if missing.name != "qevgrid":
        raise
    sys.exit("qevgrid is not installed here; run: pip install -c constraints.txt -e .")

EXAMPLES = f"""
learned agents (agent.kind): {" ".join(LEARNERS)}

examples:
  python train.py --config configs/v2g_ppo.yaml
  python train.py --config configs/v2g_ppo.yaml --seed 3 --out runs/small agent.lr=1e-3 env.n_sockets=10
  python train.py --config configs/v2g_ppo.yaml env.sessions=sessions.csv env.prices=prices.csv
  python train.py --config configs/v2g_ppo.yaml --out runs/small --resume
  python train.py --config configs/v2g_hybrid.yaml agent.sampler=neal
  tensorboard --logdir runs

A run folder holds config.yaml, model.zip (the best weights on the validation days), checkpoints/,
evaluations.csv, metrics.json, pictures and TensorBoard events.
"""


def _parser() -> Parser:
    parser = Parser(prog="train.py", description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--config", type=Path, help="YAML file of the run, e.g. configs/v2g_ppo.yaml")
    parser.add_argument("--seed", type=int, help="replaces the file's seed")
    parser.add_argument("--out", type=Path, help="run folder; default runs/<config>_<seed>")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    parser.add_argument(
        "--keys", action="store_true", help="list every key that a config or key=value can set, by kind of agent"
    )
    add_overrides(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parse_args(parser, argv)
    from qevgrid.runner.config import load_config
    from qevgrid.runner.schema import RunConfig

    if args.keys:
        print(describe(RunConfig))
        return 0
    if args.config is None:
        parser.error("--config is required")
    overrides = [*args.overrides, *([f"seed={args.seed}"] if args.seed is not None else [])]
    config = load_config(RunConfig, args.config, overrides)
    out = args.out or Path("runs") / f"{args.config.stem}_{config.seed}"
    from qevgrid.runner.loop import train

    folder = train(config, out, resume=args.resume, arguments=list(argv if argv is not None else sys.argv[1:]))
    print(f"trained: {folder.path}  (tensorboard --logdir {folder.path.parent})")
    rivals = " ".join(RIVALS[config.env.id].to_beat)
    print(f"next: python evaluate.py {folder.path} {rivals} --config {args.config} --episodes 20 --seed 1000")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    return run_cli(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
