// How the processes of a cluster are set up: what `tutti coordinator|worker --config F` read and
// `tutti up` fills in.
//
// The coordinator leaves three files in its state folder, all 0600: `address` (URL of the HTTP
// API), `token` (the first admin token) and `join.json` {"endpoint", "server_key", "join_token"},
// which is all that a worker needs to join.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::spec {

struct CoordinatorConfig {
  std::string state;        // folder; made if missing; locked, so that it admits one coordinator
  std::string job_folders;  // where those of jobs are made; empty: `jobs` in `state`
  std::string http_host = "127.0.0.1";
  std::uint16_t http_port = 0;  // 0: the one used before, else chosen by the system
  std::string control_host = "127.0.0.1";
  std::uint16_t control_port = 0;   // ZeroMQ; the same rule
  std::uint16_t liveness_port = 0;  // whose bare connections tell of a worker's end; the same rule
  std::uint32_t lease_ms = 5'000;
  std::uint32_t heartbeat_ms = 500;
  // A training job that may have more ranks is given them after it ran so long with what it has.
  std::uint32_t grow_after_ms = 30'000;
  std::uint32_t notice_ms = 60'000;  // for a job that is asked to leave, to save and stop
  std::uint32_t drain_ms = 600'000;  // of a drain that names no deadline
  bool faults = false;               // whether /api/v1/faults is served
  // By user, or `default`: "slots=8 running=4 queued=100 share=2" (scheduler/quotas.h). Read again
  // on SIGHUP, alone of all keys.
  std::map<std::string, std::string> quotas;
  std::string source;  // not a key: the file that this was read from, if it was

  bool operator==(const CoordinatorConfig&) const = default;
};

struct WorkerConfig {
  std::string state;          // folder of this worker: spools, lock
  std::string join = "";      // path of join.json; waited for
  std::string name;           // empty: the host's name
  std::uint32_t slots = 0;    // 0: one a core that ranks have
  std::uint32_t threads = 0;  // cores of a slot; 0: cores / slots, at least 1
  std::string rank_binary;    // empty: tutti-rank beside the running binary
  bool runs_programs = true;  // kind `run`
  bool faults = false;
  std::map<std::string, std::string> labels;  // for resources.labels of jobs
  std::uint64_t notice_ms = 30'000;           // from SIGTERM until ranks that still run are ended

  bool operator==(const WorkerConfig&) const = default;
};

// From strict YAML (the fields above as keys). Errors: invalid_argument with file, line and column.
Result<CoordinatorConfig> parse_coordinator_config(std::string_view yaml, std::string_view file);
Result<WorkerConfig> parse_worker_config(std::string_view yaml, std::string_view file);

// What each key means, a line each, for `tutti help`.
std::string coordinator_key_lines();
std::string worker_key_lines();

// As YAML that parses to the same value.
std::string to_yaml(const CoordinatorConfig& config);
std::string to_yaml(const WorkerConfig& config);

}  // namespace tutti::spec
