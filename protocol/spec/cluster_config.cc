#include "protocol/spec/cluster_config.h"

#include "protocol/spec/document.h"
#include "protocol/spec/fill.h"
#include "protocol/spec/help.h"
#include "protocol/spec/key_table.h"

namespace tutti::spec {

namespace {

using C = CoordinatorConfig;
using W = WorkerConfig;
constexpr double kPortMax = 65'535;
constexpr double kLeaseMsMax = 3'600'000;
constexpr double kDrainMsMax = 7 * 24 * kLeaseMsMax;

const Key kCoordinatorKeys[] = {
    {"state", form(Form::text), kEvery, kRequired, reach<&C::state>,
     "folder of the journal, keys and files for clients"},
    {"job_folders", form(Form::text), kEvery, kOptional, reach<&C::job_folders>,
     "where each job is given a folder, for checkpoints: of several machines one that all see, by "
     "the same path; else `jobs` in `state`"},
    {"http_host", form(Form::text), kEvery, kOptional, reach<&C::http_host>,
     "address of the HTTP API"},
    {"http_port", whole(0, kPortMax), kEvery, kOptional, reach<&C::http_port>,
     "0: the one used before, else any"},
    {"control_host", form(Form::text), kEvery, kOptional, reach<&C::control_host>,
     "address that workers connect to"},
    {"control_port", whole(0, kPortMax), kEvery, kOptional, reach<&C::control_port>,
     "0: the one used before, else any"},
    {"liveness_port", whole(0, kPortMax), kEvery, kOptional, reach<&C::liveness_port>,
     "whose connections tell of a worker's end; 0: the one used before, else any"},
    {"lease_ms", whole(100, kLeaseMsMax), kEvery, kOptional, reach<&C::lease_ms>,
     "silence after which a worker is lost"},
    {"heartbeat_ms", whole(10, kLeaseMsMax), kEvery, kOptional, reach<&C::heartbeat_ms>,
     "how often a worker speaks"},
    {"grow_after_ms", whole(1, kLeaseMsMax), kEvery, kOptional, reach<&C::grow_after_ms>,
     "how long a training job has run before it is given free slots, up to its ranks.max"},
    {"notice_ms", whole(0, kLeaseMsMax), kEvery, kOptional, reach<&C::notice_ms>,
     "time that a job has to save and stop when it is preempted or cancelled with --save"},
    {"drain_ms", whole(0, kDrainMsMax), kEvery, kOptional, reach<&C::drain_ms>,
     "time that jobs have to leave a drained node, where the drain names none"},
    {"faults", form(Form::flag), kEvery, kOptional, reach<&C::faults>,
     "whether faults may be injected"},
    {"quotas", form(Form::text_map), kEvery, kOptional, reach<&C::quotas>,
     "what each user (or `default`) may have: slots and running jobs at a time, queued jobs, and "
     "the share beside others who wait: {ann: \"slots=8 running=4 queued=100 share=2\"}"},
};

const Key kWorkerKeys[] = {
    {"state", form(Form::text), kEvery, kRequired, reach<&W::state>, "folder of the spools"},
    {"join", form(Form::text), kEvery, kRequired, reach<&W::join>,
     "join.json, which the coordinator writes"},
    {"name", form(Form::name), kEvery, kOptional, reach<&W::name>, "else the host's name"},
    {"slots", whole(0, 4096), kEvery, kOptional, reach<&W::slots>,
     "ranks at a time; 0: one a core that ranks have (of more than two, all but the agent's)"},
    {"threads", whole(0, 4096), kEvery, kOptional, reach<&W::threads>,
     "cores of a slot; 0: cores / slots"},
    {"rank_binary", form(Form::text), kEvery, kOptional, reach<&W::rank_binary>,
     "else tutti-rank beside this program"},
    {"runs_programs", form(Form::flag), kEvery, kOptional, reach<&W::runs_programs>,
     "whether `run` jobs may come here"},
    {"faults", form(Form::flag), kEvery, kOptional, reach<&W::faults>,
     "whether faults may be injected"},
    {"labels", form(Form::text_map), kEvery, kOptional, reach<&W::labels>,
     "what jobs may ask of the node they run on (resources.labels)"},
    {"notice_ms", whole(0, kLeaseMsMax), kEvery, kOptional, reach<&W::notice_ms>,
     "time that ranks have to save and stop when the worker is told to end"},
};

template <class Config>
Result<Config> parse(std::string_view yaml, std::string_view file, std::span<const Key> keys) {
  const std::string source(file);
  const Result<Node> root = parse_document(yaml, source);
  if (!root) return root.error();
  Config config;
  const Table table{keys, {}, {}};
  const Result<Places> places = fill(*root, table, &config, {});
  if (!places) return places.error();
  if constexpr (std::is_same_v<Config, CoordinatorConfig>) {
    config.source = source;
    if (config.heartbeat_ms * 2 > config.lease_ms) {
      const auto at = places->find("heartbeat_ms");
      return error_at(at == places->end() ? root->place : at->second,
                      "heartbeat_ms must be at most half of lease_ms");
    }
  }
  return config;
}

template <class Config>
std::string print(Config config, std::span<const Key> keys) {
  std::string yaml;
  for (const Key& key : keys) {
    const std::string value = print_value(key, key.at(&config));
    if (!value.empty()) yaml += std::string(key.path) + ": " + value + '\n';
  }
  return yaml;
}

// A flag that is off is printed by no configuration, and needs no words.
template <class Config>
std::string lines(std::span<const Key> keys) {
  Config defaults;
  return key_lines(keys, [&](const Key& key) { return print_value(key, key.at(&defaults)); });
}

}  // namespace

Result<CoordinatorConfig> parse_coordinator_config(std::string_view yaml, std::string_view file) {
  return parse<CoordinatorConfig>(yaml, file, kCoordinatorKeys);
}

Result<WorkerConfig> parse_worker_config(std::string_view yaml, std::string_view file) {
  return parse<WorkerConfig>(yaml, file, kWorkerKeys);
}

std::string coordinator_key_lines() { return lines<CoordinatorConfig>(kCoordinatorKeys); }

std::string worker_key_lines() { return lines<WorkerConfig>(kWorkerKeys); }

std::string to_yaml(const CoordinatorConfig& config) { return print(config, kCoordinatorKeys); }

std::string to_yaml(const WorkerConfig& config) { return print(config, kWorkerKeys); }

}  // namespace tutti::spec
