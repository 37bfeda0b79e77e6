# Everything runs in .venv, made on first use. `make` alone lists what can be made.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= auto
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check install --quiet -c constraints.txt

# Stamps: newer than pyproject.toml and constraints.txt means installed.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

DEMO_STEPS    ?= 500000
DEMO_HYBRID   ?= 6144
DEMO_VQC      ?= 12288
DEMO_STORMS   ?= 32
DEMO_CSP      ?= 32768
DEMO_EPISODES ?= 10
DEMO_CONFIG   := configs/v2g_ppo.yaml
DEMO          := runs/demo
DEMO_CSP_ENV  := configs/mobile_csp_ppo.yaml
DEMO_AGENTS   := idle cheap llf tou serve rolling rolling_reserve optimum hybrid $(DEMO)/ppo $(DEMO)/hybrid_short $(DEMO)/vqc

.PHONY: help demo test lint benchmark clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  make demo DEMO_STEPS=2000       a quicker, worse agent"
	@echo "  make test PYTHON=python3.12     another Python, for a new .venv"
	@echo "  make test TESTS='tests/test_packaging.py -x'"

demo: $(RUN) ## train PPO, a hybrid and a circuit agent, and PPO on Mobile CSP, then compare them with their rivals and the optimum
	@rm -rf $(DEMO)
	@echo "==> training PPO for $(DEMO_STEPS) steps: $(DEMO)/ppo"
	@$(PY) train.py --config $(DEMO_CONFIG) --out $(DEMO)/ppo total_steps=$(DEMO_STEPS) eval_every=100000
	@echo "==> training a hybrid agent briefly: $(DEMO)/hybrid_short"
	@$(PY) train.py --config configs/v2g_hybrid.yaml --out $(DEMO)/hybrid_short total_steps=$(DEMO_HYBRID) eval_every=3072 eval_episodes=32 agent.days=48
	@echo "==> training a circuit agent briefly: $(DEMO)/vqc"
	@$(PY) train.py --config configs/v2g_vqc.yaml --out $(DEMO)/vqc total_steps=$(DEMO_VQC) eval_every=6144 eval_episodes=32
	@echo "==> evaluating the three, and the shipped hybrid, beside the rivals on $(DEMO_EPISODES) unseen days: $(DEMO)/evaluation"
	@$(PY) evaluate.py $(DEMO_AGENTS) --config $(DEMO_CONFIG) --episodes $(DEMO_EPISODES) --seed 1000 --out $(DEMO)/evaluation
	@echo "==> Mobile CSP: training a scorer of sites briefly: $(DEMO)/csp_ppo"
	@$(PY) train.py --config $(DEMO_CSP_ENV) --out $(DEMO)/csp_ppo total_steps=$(DEMO_CSP) eval_every=16384 eval_episodes=16 ruler=false agent.warm_storms=$(DEMO_STORMS)
	@echo "==> evaluating it beside rolling plans and the best known on $(DEMO_EPISODES) unseen storms: $(DEMO)/csp_evaluation"
	@$(PY) evaluate.py idle greedy tuned rolling optimum $(DEMO)/csp_ppo --config $(DEMO_CSP_ENV) --episodes $(DEMO_EPISODES) --seed 1000 --out $(DEMO)/csp_evaluation
	@echo "==> done; learner, rivals and optimum in one page: $(VENV)/bin/tensorboard --logdir $(DEMO)"

# One thread per worker: the workers share the cores already.
test: $(DEV) ## run the tests
	@echo "==> pytest"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) $(TESTS)

lint: $(DEV) ## check style, formatting and the direction of imports
	@echo "==> ruff, import-linter"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports --no-logo

benchmark: $(RUN) ## measure the environments beside EV2Gym, the optimum by size, the annealers, the circuits, the embeddings
	@echo "==> benchmarks/speed.py"
	@$(PY) benchmarks/speed.py
	@echo "==> benchmarks/program.py"
	@$(PY) benchmarks/program.py
	@echo "==> benchmarks/qubo_solvers.py"
	@$(PY) benchmarks/qubo_solvers.py
	@echo "==> benchmarks/vqc_speed.py"
	@$(PY) benchmarks/vqc_speed.py
	@echo "==> benchmarks/embedding.py"
	@$(PY) benchmarks/embedding.py

clean: ## remove what tools left behind; keep .venv, runs/ and results/
	@echo "==> removing build products and caches"
	@rm -rf build dist *.egg-info .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	@find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@echo "==> making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(PY)
	@echo "==> installing qevgrid into $(VENV) (the first time takes minutes: torch)"
	@$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(PY)
	@echo "==> installing qevgrid and its tools into $(VENV) (the first time takes minutes: torch)"
	@$(PIP) -e ".[dev]"
	@touch $(RUN) $@
