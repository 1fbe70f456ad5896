# make book   builds the book into book/_build/html      make test   runs the tests
# make lab    opens JupyterLab on the notebooks          make lint   ruff, mypy, and lib/ against Python 3.8
# make test38 runs the tests on Python 3.8, as a Jetson has it (once: makes .venv38, 5 GB)
#
# make book PROFILE=profiles/workstation.yaml RUN=my-run   builds with other parameters (see README.md)
# make book PYTHON=python3.12                              makes .venv with another Python

PYTHON ?= python3
VENV   ?= .venv
EXTRAS  = book,test,engines
WORKERS ?= 2
BIN     = $(VENV)/bin
# Without setuptools' warning that a folder may hide an editable installation.
PIP     = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
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

.PHONY: book pdf test test38 lab lint install clean
.DEFAULT_GOAL = book

book: $(STAMP)
	$(BIN)/siambook measure
	$(BIN)/jupyter-book build -W --keep-going book/
	@echo "The book: file://$(CURDIR)/book/_build/html/index.html"

# The built book as book/_build/siambook.pdf; needs Chromium
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

install: $(STAMP)

$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8) and "siambook needs Python 3.9 or newer (make PYTHON=python3.x ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(PIP) --upgrade "pip>=23"
	$(PIP) -e ".[$(EXTRAS)]"
	$(BIN)/python -c "import cv2" 2>/dev/null || $(PIP) -e ".[opencv]"
	touch $@

clean:
	rm -rf book/_build $(VENV) .venv38
