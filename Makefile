# make book   builds the book into book/_build/html      make test   runs the tests
# make lab    opens JupyterLab on the notebooks          make lint   ruff, mypy, and lib/ against Python 3.8
# make pdf    prints the built book as one PDF
# make test38 runs the tests on Python 3.8, as a Jetson has it (once: makes .venv38, 5 GB)
# make lock   resolves pyproject.toml into the lock, keeping what fits (ARGS=--upgrade: the newest); make lock-check: a dry run for
#             every platform and Python
# make test-aarch64 runs tests on an emulated Debian 11 for arm64   make audit  lists known weaknesses of the locked versions
#
# make book PROFILE=profiles/workstation.yaml RUN=my-run   builds with other parameters (see README.md)
# make book PYTHON=python3.12                              makes .venv with another Python
# make install LOCK=                                       the newest versions instead of the lock's

PYTHON ?= python3
VENV   ?= .venv
EXTRAS  = book,test,engines
LOCK   ?= $(if $(filter board,$(EXTRAS)),requirements-board.lock,requirements.lock)
WORKERS ?= 2
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

# On a Jetson PyTorch, TensorRT and OpenCV come with JetPack, outside of pip's reach: let the environment see them.
VENV_FLAGS ?= $(if $(wildcard /etc/nv_tegra_release),--system-site-packages)

# The notebooks' parameters; lib/book/notebook.py reads them, so `jupyter-book build book/` obeys the same variables.
ifdef PROFILE
export SIAMBOOK_PROFILE = $(PROFILE)
endif
ifdef RUN
export SIAMBOOK_RUN = $(RUN)
endif

.PHONY: book pdf test test38 lab lint install lock lock-check audit test-aarch64 clean
.DEFAULT_GOAL = book

book: $(STAMP)
	$(BIN)/siambook measure
	$(BIN)/jupyter-book build -W --keep-going book/
	@echo "The book: file://$(CURDIR)/book/_build/html/index.html"

# The built book as book/_build/html/siambook.pdf, which the front page then links to; needs Chromium
pdf: $(STAMP)
	$(BIN)/python -m lib.book.pdf

# Two files of tests at a time, and one thread in each: PyTorch's threads wait for each other without resting.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test38:
	WORKERS=$(WORKERS) .ci/python38 $(ARGS)

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --target=3.8- --violations lib
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline --min-severity medium .github/workflows

install: $(BIN)/python
	.ci/install $(BIN)/python "$(EXTRAS)" "$(LOCK)"
	touch $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8) and "siambook needs Python 3.9 or newer (make PYTHON=python3.x ...)")'
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)

$(STAMP): pyproject.toml Makefile .ci/install $(LOCK)
	$(MAKE) install

$(BIN)/uv: $(BIN)/python
	$(BIN)/python -m pip install --quiet uv

lock: $(BIN)/uv
	.ci/lock $< $(ARGS)

lock-check: $(BIN)/uv
	.ci/lock $< check

# Known weaknesses of the locked versions: a report.
audit: $(BIN)/uv
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit -r requirements.lock --no-deps --disable-pip --progress-spinner off

test-aarch64: $(BIN)/uv
	.ci/aarch64 $< $(ARGS)

clean:
	rm -rf book/_build $(VENV) .venv38
