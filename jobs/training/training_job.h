// What a training job is made of, opened from its spec: model, data, optimizer, schedule.
//
// Every rank opens it alone, from the spec and from files that all see, and comes to the same.
//
// Errors: the user's, one line naming file, key or tensor: invalid_argument, not_found,
// permission_denied, corrupt, unsupported; the system's: exhausted, unavailable.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "jobs/data/dataset.h"
#include "jobs/models/decoder.h"
#include "jobs/models/parts/layer_bands.h"
#include "jobs/optimizers/optimizer.h"
#include "jobs/optimizers/schedule.h"
#include "protocol/spec/job_spec.h"

namespace tutti::kernels {
class Device;
}

namespace tutti::training {

struct TrainingJob {
  spec::JobSpec spec;
  std::string spec_text;  // as YAML, for checkpoints
  models::Decoder decoder;
  data::Dataset dataset;
  std::string tokenizer;  // path of the tokenizer.json that goes into checkpoints; empty: none
  const optimizers::Optimizer* optimizer = nullptr;
  const optimizers::Schedule* schedule = nullptr;
  // On a device, where rows are kept rounded: weights, too, once a step. Changes no bit.
  bool rounds_weights = true;

  // The last step that is made: `train.stop`, or `train.steps`.
  std::uint64_t last_step() const;
  // Samples that go through the pass together; `device` is null for CPUs.
  std::uint32_t micro(const kernels::Device* device) const;
  models::Recompute recompute() const;
  models::Kept kept() const;  // on a device
  // Whether the run saves after this step without being asked.
  bool saves_after(std::uint64_t step) const;
};

// The model of a spec, without weights.
Result<models::Decoder> open_decoder(const spec::JobSpec& spec);

// Whether a device has room for the job's state, gradients and activations; before anything is
// allocated. Rounds no weights ahead where there is no room for them. Errors: invalid_argument with
// both numbers: the user's, as no retry helps.
Result<> fit_memory(TrainingJob& job, kernels::Device* device);

struct OpenOptions {
  spec::JobSpec spec;
  std::string spec_text;
  std::string folder;  // the job's, where tokenized text is kept
};

Result<std::unique_ptr<TrainingJob>> open_training_job(const OpenOptions& options);

}  // namespace tutti::training
