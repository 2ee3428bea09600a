// A job spec: what a user writes in YAML, as typed structs with every default filled in.
//
// parse_job_spec (parse.h) makes one from text, strictly: an unknown key is an error with its line,
// column and the nearest valid key. to_yaml writes the resolved spec, which parses to the same
// value again; the journal, the wire and the ranks all carry that text.
//
// Units: as named; durations in milliseconds (written "60s", "1h" in YAML), memory in bytes
// (written "2GiB").
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tutti::spec {

enum class JobKind { train, serve, generate, evaluate, tune, check, benchmark, run };

// Either `path` (a Hugging Face model directory or one of our checkpoints) or the shape of a new
// model.
struct ModelSpec {
  std::string path;
  std::string family;  // gpt2, llama
  std::uint32_t layers = 0;
  std::uint32_t width = 0;  // hidden size, a multiple of heads
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;      // 0 in YAML: as many as heads
  std::uint32_t feed_forward = 0;  // 0 in YAML: 8/3 of width, up to a multiple of 64; gpt2: 4 of it
  std::uint32_t vocabulary = 0;
  double rope_theta = 10'000;
  double norm_epsilon = 1e-5;
  bool tied = true;  // input and output embeddings are one

  bool operator==(const ModelSpec&) const = default;
};

// Exactly one of `text` and `tokens`. Paths are absolute once the CLI has sent them.
struct DataSpec {
  std::vector<std::string> text;
  std::vector<std::string> tokens;  // .npy of uint16, uint32 or int32
  std::string tokenizer;  // tokenizer.json; empty: the model's, else trained on `text` with the
                          // model's vocabulary
  std::uint32_t sequence = 0;  // T, tokens a sample
  bool shuffle = true;

  bool operator==(const DataSpec&) const = default;
};

struct OptimizerSpec {
  std::string name = "adamw";
  double rate = 1e-3;
  std::vector<double> betas = {0.9, 0.95};
  double epsilon = 1e-8;
  double decay = 0.1;  // of matrices only

  bool operator==(const OptimizerSpec&) const = default;
};

struct ScheduleSpec {
  std::string name = "cosine";  // constant | linear | cosine
  std::uint64_t warmup = 0;     // steps
  double floor = 0.1;           // final rate as a share of the peak

  bool operator==(const ScheduleSpec&) const = default;
};

// Of the losses, in fp16.
struct ScalingSpec {
  std::uint32_t first = 1024;  // a power of two
  std::uint64_t every = 2000;  // good steps in a row that double it; 0: none do

  bool operator==(const ScalingSpec&) const = default;
};

struct TrainSpec {
  std::uint64_t steps = 0;
  std::uint32_t batch = 0;  // samples a step, over all ranks
  std::uint32_t micro =
      0;  // samples at a time in one rank; 0: auto. Never changes a bit of the result
  std::uint64_t seed = 1;
  std::string precision = "fp32";  // fp32 | bf16 | fp16 | tf32 | fp8: what products read
  // Rows of the output head in memory: up to a multiple of this; 0: as many as the vocabulary. Of a
  // model's shape, its files and its hash nothing changes.
  std::uint32_t pad_vocabulary = 0;
  // none | selective | full: what backward runs again in place of keeping it. Never changes a bit
  // of the result
  std::string recompute = "none";
  double dropout = 0;  // share of what is dropped; 0: none
  ScalingSpec scaling;
  double clip = 1.0;  // global norm; 0: off
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  std::string
      resume;  // checkpoint folder (.../step-N) to go on from, with optimizer state and cursor
  std::uint64_t stop = 0;  // end after this step although the schedule goes on; 0: steps

  bool operator==(const TrainSpec&) const = default;
};

struct ParallelSpec {
  std::uint32_t data = 0;  // ranks; 0: auto, as many as resources allow
  std::uint32_t shards =
      0;  // logical shards, a power of two; 0: the largest that is <= min(8, batch)

  bool operator==(const ParallelSpec&) const = default;
};

struct ResourceSpec {
  std::string device = "any";  // any | cpu | gpu
  std::uint32_t ranks_min = 1;
  std::uint32_t ranks_max = 1;
  std::uint32_t threads = 0;                  // a rank; 0: the cores of its slot
  std::uint32_t cores = 0;                    // a rank of `run`; 0: those of its slot
  std::uint64_t memory_bytes = 0;             // a rank; 0: not limited
  std::uint64_t device_memory_bytes = 0;      // of the GPU that a rank runs on, at least; 0: any
  std::map<std::string, std::string> labels;  // a node must have all of them
  std::map<std::string, std::string> prefer;  // the more of them a node has, the better
  std::string policy = "packed";              // first-fit | packed | spread

  bool operator==(const ResourceSpec&) const = default;
};

struct CheckpointSpec {
  std::uint64_t every = 0;  // steps; 0: only the last
  std::uint32_t keep = 3;   // 0: all
  bool last = true;         // checkpoint after the last step

  bool operator==(const CheckpointSpec&) const = default;
};

struct OnLossSpec {
  std::string of_node = "replace";  // wait | replace | shrink | fail
  std::uint64_t wait_ms = 60'000;
  std::string then;  // after the wait: fail | queue | shrink; empty: fail for wait, else queue

  bool operator==(const OnLossSpec&) const = default;
};

struct RetriesSpec {
  std::uint32_t user = 0;
  std::uint32_t infrastructure = 20;
  std::uint32_t preemptions = 0;  // after so many nobody preempts it any more; 0: no limit
  // Each with `class` (user | infrastructure) and `code` or `log` or both; the first match counts.
  std::vector<std::map<std::string, std::string>> on;
  std::uint64_t backoff_first_ms = 1'000;  // before the second try in a row; doubled each time
  std::uint64_t backoff_max_ms = 60'000;
  double backoff_jitter = 0.2;  // share of the wait that is chance

  bool operator==(const RetriesSpec&) const = default;
};

struct HangSpec {
  std::uint64_t after_ms = 0;      // 0: by the ranks' own pace
  std::string action = "restart";  // restart | fail | tell

  bool operator==(const HangSpec&) const = default;
};

struct ServeSpec {
  std::string name;              // what clients ask for; empty: the job's name
  std::uint32_t batch_max = 16;  // requests decoded together
  std::uint32_t tokens_max = 0;  // context limit; 0: the model's
  std::string weights = "fp32";  // how matrices are kept: fp32, bf16, int8, GGUF's formats

  bool operator==(const ServeSpec&) const = default;
};

struct LimitSpec {
  std::uint64_t time_ms = 0;  // running; 0: none
  std::uint64_t queued_ms = 0;

  bool operator==(const LimitSpec&) const = default;
};

// Jobs that must have ended before this one may start: done, failed, or in any way.
struct AfterSpec {
  std::vector<std::uint64_t> ok;
  std::vector<std::uint64_t> failed;
  std::vector<std::uint64_t> any;

  bool operator==(const AfterSpec&) const = default;
};

// One spec as many tasks, each with its `${index}`, from 0.
struct ArraySpec {
  std::uint32_t count = 0;    // 0: not an array
  std::uint32_t at_once = 0;  // tasks at a time; 0: as many as there is room for

  bool operator==(const ArraySpec&) const = default;
};

struct JobSpec {
  std::string name;
  JobKind kind = JobKind::train;
  ModelSpec model;                         // train, serve
  DataSpec data;                           // train
  TrainSpec train;                         // train
  ParallelSpec parallel;                   // train
  ServeSpec serve;                         // serve
  std::vector<std::string> command;        // run
  std::map<std::string, std::string> env;  // run
  std::string folder;                      // run: working directory; empty: the job's folder
  ResourceSpec resources;
  CheckpointSpec checkpoint;
  OnLossSpec on_loss;
  RetriesSpec retries;
  HangSpec hang;  // train and serve
  std::int32_t priority = 0;
  LimitSpec limit;
  // run: how long its programs go on without a word of the coordinator; 0: for ever ("never").
  std::uint64_t stop_after_ms = 60'000;
  AfterSpec after;
  std::uint64_t begin_unix_ms = 0;   // not started before; 0: at once
  std::uint64_t delay_ms = 0;        // not started before so long after the submit
  ArraySpec array;                   // run
  std::string preemptible = "auto";  // auto (train jobs, which save first) | always | never

  bool operator==(const JobSpec&) const = default;
};

}  // namespace tutti::spec
