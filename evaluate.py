"""Compare agents on held-out days: ``python evaluate.py NAME_OR_RUN_FOLDER ... --config FILE``."""

import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from qevgrid.agents import LEARNERS, RIVALS, Rivals
    from qevgrid.runner.cli import Parser, add_names, parse_args, run_cli, split_names
except ModuleNotFoundError as missing:
    if missing.name != "qevgrid":
        raise
    sys.exit("qevgrid is not installed here; run: pip install -c constraints.txt -e .")


def _rivals_text(problem_id: str, rivals: Rivals) -> str:
    where = f" in {problem_id}" if len(RIVALS) > 1 else ""
    ruler = f"({rivals.naive} is the score's 0, {rivals.best} with perfect foresight its 1)"
    return f"rivals{where}: {' '.join(rivals.paths)}\n        {ruler}"


_RIVALS_TEXT = "\n".join(_rivals_text(name, rivals) for name, rivals in RIVALS.items())
EXAMPLES = f"""
{_RIVALS_TEXT}
learned agents: run folders of train.py ({" ".join(LEARNERS)})

examples:
  python evaluate.py idle tou serve optimum --config configs/v2g_ppo.yaml --episodes 20
  python evaluate.py runs/v2g_ppo_0 rolling_reserve optimum --config configs/v2g_ppo.yaml --episodes 100 --out results/mine
  python evaluate.py idle serve --config configs/v2g_ppo.yaml env.outage.share=1.0 env.n_sockets=50
  python evaluate.py runs/v2g_hybrid_0 hybrid optimum --config configs/v2g_hybrid.yaml agent.sampler=neal

Every agent plays the same days. DIR gets table.csv, episodes.csv, evaluation.json, pictures and
TensorBoard events. A learned agent needs the env.* keys that it was trained with. The configuration's
agent section says how all agents of its kind decide here; those of another kind keep their own settings.
"""


def _parser() -> Parser:
    parser = Parser(prog="evaluate.py", description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--config", type=Path, help="YAML file of env and agent, e.g. configs/v2g_ppo.yaml")
    parser.add_argument("--episodes", type=int, default=20, help="held-out days (default 20)")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first day (default 1000)")
    parser.add_argument("--out", type=Path, default=Path("results/evaluation"), help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in that folder")
    parser.add_argument("--no-ruler", action="store_true", help="do not compute idle and optimum: no scores")
    parser.add_argument("--jobs", type=int, help="processes for the slow agents (default: all cores)")
    add_names(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parse_args(parser, argv)
    if args.config is None:
        parser.error("--config is required")
    from qevgrid.runner.config import load_config
    from qevgrid.runner.schema import RunConfig

    names, overrides = split_names(args.names)
    config = load_config(RunConfig, args.config, overrides)
    from qevgrid.envs.problem import problem_of
    from qevgrid.runner.evaluation import Request, evaluate, terminal_table

    request = Request(names, config, args.episodes, args.seed, args.out, args.overwrite, not args.no_ruler, args.jobs)
    rows = evaluate(request)
    print(terminal_table(rows, problem_of(config.env)))
    print(f"\nwritten to {args.out}: table.csv episodes.csv evaluation.json")
    for picture in sorted(args.out.glob("*.png")):
        print(f"  {picture}")
    print(f"tensorboard --logdir {args.out.parent if args.out.parent != Path('.') else args.out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    return run_cli(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
