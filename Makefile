PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
WORKERS ?= 2

.PHONY: demo test parity winclip faults fuzz bench gpu lint types clean

demo: $(VENV)/run.stamp
	$(RUN) demo.py

test: $(VENV)/dev.stamp  # side by side, the tests of a file in one process of one thread
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

parity: $(VENV)/dev.stamp  # with the trainings that take minutes
	WHOLE=1 $(RUN) -m pytest tests/test_parity.py tests/test_madclip.py -v

winclip: $(VENV)/dev.stamp  # against anomalib's; without its dependencies, one of which is an older CLIP
	$(RUN) -m pip install --no-deps -r tests/anomalib.txt
	$(RUN) -m pytest tests/test_method_winclip.py -v

faults: $(VENV)/dev.stamp  # fifteen minutes
	$(RUN) -m tests.faults.kills

fuzz: $(VENV)/dev.stamp  # 20,000 damaged and hostile files, some minutes
	$(RUN) -m tests.fuzz.run

bench: $(VENV)/dev.stamp
	$(RUN) -m benchmarks.bench

gpu: $(VENV)/dev.stamp  # eight minutes on a machine with a GPU
	$(RUN) -m benchmarks.gpu

lint: $(VENV)/dev.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/dev.stamp
	$(RUN) -m mypy

$(VENV)/run.stamp: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -r requirements.txt
	touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	$(RUN) -m pip install -r requirements-dev.txt
	touch $@

clean:  # never results or checkpoints of real runs
	rm -rf demo demo-* fuzz-faults .cache .pytest_cache .ruff_cache .mypy_cache
