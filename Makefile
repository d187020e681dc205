# Sets up .venv and runs the chain or the tests; everything else is the soundstorm command itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv does not read pip's settings: where those name a folder of wheels, such as one with a CPU build of torch, hand it on.
WHEELS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
ifneq ($(WHEELS),)
export UV_FIND_LINKS := $(WHEELS)
endif

# Threads that wait for one another go to sleep soon: on a busy machine that is ten times faster.
export GOMP_SPINCOUNT ?= 2000
# Where this is set, as in many container images, every command would compile all of torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup scorers demo demo-fit tokens-small train-small comparison-budget comparison-network comparison \
  shipped ablation-reconstruction ablation-best-of-4 ablation training-budget ablation-training test check lock

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[lyra,phones]' --group dev
	@touch $@

# What the comparison and the ablation listen with beside Whisper: DNSMOS, and Resemblyzer without the packages that it
# asks for and does not need.
scorers: $(VENV)/scorers-ready

$(VENV)/scorers-ready: $(VENV)/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -r pyproject.toml --extra scorers
	$(BIN)/uv pip install --quiet --python $(BIN)/python webrtcvad-wheels
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps resemblyzer
	@touch $@

demo: setup
	$(BIN)/python -m pipeline.demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(VOICE),--voice '$(VOICE)')

demo-fit: setup
	$(BIN)/python -m pipeline.demo --fit

# The small system again, except for its codec, whose card says how. data/{train,heldout,test}.csv are manifests with the
# columns path,text,speaker; no speaker is in two of them. What is done already is not done again. What does not wait for
# one another can run side by side: make -j 2 on a CPU with OMP_NUM_THREADS=1, so that each has a core.
SOUNDSTORM := $(BIN)/soundstorm
TEACHER := runs/semantic/whisper_base/tokenizer
STUDENT := runs/semantic/distilled_sentences/tokenizer
SOFT := --model.init_args.soft '{num_tokens: 16, sharpness: 30.0}'
SPLITS := train heldout test

$(SPLITS:%=data/%.csv):
	@echo "$@ is missing: a manifest with the columns path,text,speaker"; exit 1

$(TEACHER): data/train.csv | setup
	test -d $@ || $(SOUNDSTORM) fit -c configs/semantic/whisper_base.yaml \
	  --data.init_args.source datamodules.audio.AudioManifest --data.init_args.source.init_args.path data/train.csv

tokens-small: $(SPLITS:%=tokens-small/%)
.PHONY: $(SPLITS:%=tokens-small/%)
$(SPLITS:%=tokens-small/%): tokens-small/%: data/%.csv $(TEACHER)
	$(SOUNDSTORM) predict -c configs/tokenize/small.yaml \
	  --data.init_args.source.init_args.path $< --trainer.callbacks.init_args.split $*

# What a synthesiser says (checkpoints/small-16k/soundstorm/README.md): data/sentences.txt has a sentence on each line.
SPOKEN := data/sentences.txt data/kokoro-v1.0.onnx data/voices-v1.0.bin

$(SPOKEN):
	@echo "$@ is missing: configs/tokenize/spoken.yaml says what it is"; exit 1

$(VENV)/speak-ready: $(VENV)/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -r pyproject.toml --extra speak
	@touch $@

# The average of SoundStorm before and after its fourth part (configs/soundstorm/small_soft.yaml), whose vector of hidden words is
# learnt anew.
FINAL := --model.init_args.network.init_args \
  '{folder: runs/small_guidance/network, other: runs/small_soft/network, share: 0.6}' \
  --trainer.default_root_dir runs/small_final --trainer.logger.init_args.name small_final

train-small: $(SPOKEN) $(VENV)/speak-ready tokens-small
	for part in distilled distilled_longer distilled_sentences; do test -d runs/semantic/$$part/tokenizer || \
	  $(SOUNDSTORM) fit -c configs/semantic/$$part.yaml || exit 1; done
	for split in $(SPLITS); do $(SOUNDSTORM) predict -c configs/tokenize/small.yaml \
	  --data.init_args.source.init_args.path data/$$split.csv --trainer.callbacks.init_args.split $$split \
	  --trainer.callbacks.init_args.output_dir runs/tokens/small_student \
	  --model.init_args.semantic.init_args.folder $(STUDENT) $(SOFT) || exit 1; done
	$(SOUNDSTORM) predict -c configs/tokenize/spoken.yaml
	$(SOUNDSTORM) predict -c configs/tokenize/spoken.yaml --trainer.callbacks.init_args.output_dir runs/tokens/spoken_student \
	  --model.init_args.semantic.init_args.folder $(STUDENT) $(SOFT)
	for stage in small small_longer small_student small_spoken small_guidance small_soft; do \
	  last=runs/$$stage/checkpoints/last.ckpt; \
	  $(SOUNDSTORM) fit -c configs/soundstorm/$$stage.yaml $$(test ! -e $$last || echo --ckpt_path $$last) && \
	  $(SOUNDSTORM) validate -c configs/soundstorm/$$stage.yaml --ckpt_path $$last || exit 1; done
	last=runs/small_final/checkpoints/last.ckpt; \
	$(SOUNDSTORM) fit -c configs/soundstorm/small_guidance.yaml $(FINAL) $$(test ! -e $$last || echo --ckpt_path $$last) && \
	$(SOUNDSTORM) validate -c configs/soundstorm/small_guidance.yaml $(FINAL) --ckpt_path $$last
	$(SOUNDSTORM) fit -c configs/evaluate/consistency_small.yaml
	rm -rf runs/small_system && mkdir runs/small_system && \
	  cp -r checkpoints/small-16k/config.yaml checkpoints/small-16k/codec runs/small_system && \
	  cp -r $(STUDENT) runs/small_system/semantic && cp -r runs/small_final/network runs/small_system/soundstorm
	@echo "The system is in runs/small_system: soundstorm generate --model runs/small_system ..."

# SoundStorm beside AudioLM, VALL-E and VALL-E 2: each of their stages sees the same frames, STEPS batches (a multiple of 200) of
# BATCH_FRAMES frames of the same tokens. With CLIPS=24 only so many clips are rendered.
STEPS ?= 4000
BATCH_FRAMES ?= 2400
STAGES := soundstorm/comparison audiolm/coarse/small audiolm/fine/small valle/ar/small valle/nar/small
RENDERINGS := generate/comparison_reconstruction generate/comparison_unprompted generate/comparison_prompted \
  audiolm/unprompted audiolm/prompted valle/unprompted valle/prompted \
  valle/repetition_aware_unprompted valle/repetition_aware_prompted
BUDGET := --trainer.max_steps $(STEPS) --model.init_args.lr_scheduler.init_args.total_steps $(STEPS) \
  --data.init_args.batch_frames $(BATCH_FRAMES)
FITS := $(STAGES:%=comparison-fit/%)
RENDERS := $(RENDERINGS:%=comparison-render/%)
LIMIT := $(if $(CLIPS),--data.init_args.predict.init_args.limit $(CLIPS))

# Called with folders of runs: a training that lies there already has to be one of this budget, or none starts.
SPENT = $(STEPS) steps of $(BATCH_FRAMES) frames
define check-budget
	@case "$(STEPS)$(BATCH_FRAMES)" in *[!0-9]*) echo "STEPS=$(STEPS) and BATCH_FRAMES=$(BATCH_FRAMES) have to be numbers"; exit 1;; esac
	@test $(STEPS) -gt 0 -a $$(($(STEPS) % 200)) = 0 || { \
	  echo "STEPS=$(STEPS) is no multiple of 200, the steps from checkpoint to checkpoint"; exit 1; }
	@for run in $(1); do \
	  test ! -e $$run/checkpoints/last.ckpt || test "$$(cat $$run/budget 2>&1)" = "$(SPENT)" || { \
	  echo "$$run holds a training of $$(cat $$run/budget 2>/dev/null || echo 'its own'), not of $(SPENT): move it away"; exit 1; }; done
	@for run in $(1); do mkdir -p $$run && echo "$(SPENT)" > $$run/budget; done
endef

comparison-budget:
	$(call check-budget,$(patsubst %/,runs/%,$(dir $(STAGES))))

.PHONY: $(FITS)
$(FITS): comparison-fit/%: comparison-budget tokens-small
	last=runs/$(*D)/checkpoints/last.ckpt; \
	$(SOUNDSTORM) fit -c configs/$*.yaml $(BUDGET) $$(test ! -e $$last || echo --ckpt_path $$last)

comparison-network: comparison-fit/soundstorm/comparison
	$(SOUNDSTORM) validate -c configs/soundstorm/comparison.yaml --ckpt_path runs/soundstorm/checkpoints/last.ckpt

comparison-render/generate/comparison_unprompted comparison-render/generate/comparison_prompted: comparison-network
$(filter comparison-render/audiolm/%,$(RENDERS)): $(filter comparison-fit/audiolm/%,$(FITS))
$(filter comparison-render/valle/%,$(RENDERS)): $(filter comparison-fit/valle/%,$(FITS))
.PHONY: $(RENDERS)
$(RENDERS): comparison-render/%: comparison-budget tokens-small
	$(SOUNDSTORM) predict -c configs/$*.yaml $(LIMIT)

# The times come last and one after another: nothing else may run while they are taken. DURATIONS='[2.0, 5.0]' for these only.
comparison: $(RENDERS) scorers
	$(SOUNDSTORM) test -c configs/evaluate/comparison.yaml
	for system in soundstorm audiolm valle valle2; do $(SOUNDSTORM) predict -c configs/speed/$$system.yaml \
	  $(if $(DURATIONS),--trainer.callbacks.init_args.durations '$(DURATIONS)') || exit 1; done
	$(SOUNDSTORM) report runs/comparison/results runs/comparison/speed --output runs/comparison/report

# The shipped system's table: on CLIPS recordings (by default 200) of data/test.csv and data/heldout.csv, scored apart, as the
# two may be of different kinds. PRECISION=bf16-mixed where the processor computes in it.
SHIPPED := --data.init_args.token_sets runs/tokens/shipped
HEARD_BY_NO_PART := test heldout
PRECISION ?= 32-true

.PHONY: $(HEARD_BY_NO_PART:%=shipped-tokens/%) $(HEARD_BY_NO_PART:%=shipped-table/%)
$(HEARD_BY_NO_PART:%=shipped-tokens/%): shipped-tokens/%: data/%.csv | setup
	$(SOUNDSTORM) predict -c configs/tokenize/small.yaml --data.init_args.source.init_args.path $< \
	  --trainer.callbacks.init_args.split $* --trainer.callbacks.init_args.output_dir runs/tokens/shipped \
	  --model.init_args.semantic.init_args.folder checkpoints/small-16k/semantic $(SOFT)

CONDITIONS := reconstruction unprompted prompted guided
.PHONY: $(CONDITIONS:%=shipped-render/%)
$(CONDITIONS:%=shipped-render/%): shipped-render/%: $(HEARD_BY_NO_PART:%=shipped-tokens/%)
	$(SOUNDSTORM) predict -c configs/generate/small_$*.yaml $(SHIPPED) --trainer.precision $(PRECISION) \
	  --data.init_args.predict.init_args.limit $(or $(CLIPS),200)

$(HEARD_BY_NO_PART:%=shipped-table/%): shipped-table/%: $(CONDITIONS:%=shipped-render/%) scorers
	$(SOUNDSTORM) test -c configs/evaluate/small.yaml --data.init_args.reference.init_args.path data/$*.csv \
	  --trainer.callbacks.init_args.output_dir runs/small/results/$*
	$(SOUNDSTORM) report runs/small/results/$* --output runs/small/report/$*

shipped: $(HEARD_BY_NO_PART:%=shipped-table/%)

# What each of the decoder's settings does to the shipped system, on the recordings of data/test.csv (or CLIPS of them).
SCHEDULES := $(basename $(notdir $(wildcard configs/schedule/*.yaml)))
ABLATED := $(SHIPPED) --data.init_args.predict.init_args.split test $(LIMIT)

ablation-reconstruction: shipped-tokens/test
	$(SOUNDSTORM) predict -c configs/generate/small_reconstruction.yaml $(ABLATED) \
	  --trainer.callbacks.init_args.output_dir runs/small/ablation/audio/reconstruction

ablation-best-of-4: shipped-tokens/test
	$(SOUNDSTORM) predict -c configs/generate/small_best_of_4.yaml $(ABLATED) --trainer.precision $(PRECISION) \
	  --trainer.callbacks.init_args.output_dir runs/small/ablation/audio/best_of_4

.PHONY: $(SCHEDULES:%=ablation-render/%)
$(SCHEDULES:%=ablation-render/%): ablation-render/%: shipped-tokens/test
	$(SOUNDSTORM) predict -c configs/generate/small_prompted.yaml $(ABLATED) --trainer.precision $(PRECISION) \
	  --model.init_args.schedule configs/schedule/$*.yaml --model.init_args.soft_semantic true \
	  --trainer.callbacks.init_args.system soundstorm-$* \
	  --trainer.callbacks.init_args.output_dir runs/small/ablation/audio/$*

ablation: ablation-reconstruction ablation-best-of-4 $(SCHEDULES:%=ablation-render/%) scorers
	$(SOUNDSTORM) test -c configs/evaluate/ablation.yaml
	$(SOUNDSTORM) report runs/small/ablation/results --output runs/small/ablation/report

# What each departure of the small preset's training from the paper's is worth: the preset, and the preset without one of them,
# all trained with the same budget on the tokens of the comparison; and the preset with guidance, which it was trained for.
TRAININGS := small $(basename $(notdir $(wildcard configs/training/*.yaml)))
RENDER_TRAINED := $(SOUNDSTORM) predict -c configs/generate/comparison_prompted.yaml $(LIMIT)

training-budget:
	$(call check-budget,$(TRAININGS:%=runs/training/%))

.PHONY: $(TRAININGS:%=training-fit/%)
$(TRAININGS:%=training-fit/%): training-fit/%: training-budget tokens-small
	stage="-c configs/soundstorm/small.yaml $(if $(filter-out small,$*),-c configs/training/$*.yaml) $(BUDGET) \
	  --trainer.default_root_dir runs/training/$* --trainer.logger.init_args.name training/$*"; \
	last=runs/training/$*/checkpoints/last.ckpt; \
	$(SOUNDSTORM) fit $$stage $$(test ! -e $$last || echo --ckpt_path $$last) && \
	$(SOUNDSTORM) validate $$stage --ckpt_path $$last

.PHONY: $(TRAININGS:%=training-render/%) training-render/guided training-render/reconstruction
$(TRAININGS:%=training-render/%): training-render/%: training-fit/%
	$(RENDER_TRAINED) --model.init_args.network.init_args.folder runs/training/$*/network \
	  --trainer.callbacks.init_args.system soundstorm-$* --trainer.callbacks.init_args.output_dir runs/training/audio/$*

training-render/guided: training-fit/small
	$(RENDER_TRAINED) --model.init_args.network.init_args.folder runs/training/small/network \
	  --model.init_args.schedule configs/schedule/guidance_1.yaml \
	  --trainer.callbacks.init_args.system soundstorm-guided --trainer.callbacks.init_args.output_dir runs/training/audio/guided

training-render/reconstruction: tokens-small
	$(SOUNDSTORM) predict -c configs/generate/comparison_reconstruction.yaml $(LIMIT) \
	  --trainer.callbacks.init_args.output_dir runs/training/audio/reconstruction

ablation-training: $(TRAININGS:%=training-render/%) training-render/guided training-render/reconstruction scorers
	$(SOUNDSTORM) test -c configs/evaluate/training.yaml
	$(SOUNDSTORM) report runs/training/results --output runs/training/report
	$(SOUNDSTORM) curves $(TRAININGS:%=runs/training/%) --output runs/training/report/curves.png \
	  --tags '["val/prompted/level_00/loss", "val/prompted/level_01/loss", "val/prompted/level_11/loss"]'

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

# Renew constraints.txt. The wheel folder stays out of it, or the versions would be those of one machine.
lock: setup
	{ echo "# Versions that the tests run with; renewed by: make lock"; \
	  echo 'torch==2.13.0' | env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group dev \
	  --universal --python-version 3.11 --no-annotate --no-header --constraint -; } > constraints.tmp
	mv constraints.tmp constraints.txt
