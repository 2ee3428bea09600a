// What the API shows of jobs and nodes: copies, made on request, of durable and soft state
// together.
//
// Units: as named; times of day in UTC milliseconds, 0 where it has not happened.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_records.h"
#include "protocol/base/ids.h"

namespace tutti::coordinator {

struct JobSummary {
  JobId job;
  std::string name;
  std::string kind;
  std::string owner;
  JobState state = JobState::queued;
  Generation generation;
  std::uint32_t ranks = 0;  // of the newest generation; 0 before the first
  std::uint32_t restarts = 0;
  std::uint64_t step = 0;                 // newest committed one
  std::uint64_t steps = 0;                // the last one, 0 if there are none
  std::optional<std::int32_t> exit_code;  // once terminal
  std::int64_t submitted_unix_ms = 0;
  std::int64_t started_unix_ms = 0;
  std::int64_t ended_unix_ms = 0;
  std::uint64_t memory_peak_bytes =
      0;                     // the largest of its processes that have ended; 0: not known
  std::uint64_t cpu_ms = 0;  // of all of them
};

struct ProcessView {
  ProcessId process;
  JobId job;
  Generation generation;
  std::uint32_t rank = 0;
  std::string worker;
  std::uint32_t slot = 0;
  std::int64_t pid = 0;
  std::string phase;  // of its progress reports; else what the coordinator knows
  std::uint64_t step = 0;
  std::uint64_t collective = 0;
  double straggler = 0;     // its time for a shard of a step over the median rank's; 0: not known
  std::string limits = {};  // what holds it to its share: "cgroup2: memory 2 GiB"; empty: nothing
};

struct JobDetail {
  JobSummary summary;
  std::string spec;  // resolved, YAML
  std::string folder;
  std::vector<CommittedCheckpoint> checkpoints;
  std::vector<Recovery> recoveries;
  Outcome outcome;      // meaningful once terminal or stopping
  std::string waiting;  // what it waits for, if queued or recovering
  std::vector<ProcessView> processes;
  std::string standstill = {};  // whom the other ranks wait for at this moment, if anybody
  ReleaseRecord release = {};   // that it is asked to leave its slots
};

struct NodeView {
  std::string name;
  std::string host;
  // ready | suspect | lost | expected (not seen since the coordinator started) | draining | drained
  // | quarantined (set aside: it works, and gets no new work)
  std::string state;
  std::uint32_t slots = 0;
  std::uint32_t free_slots = 0;
  std::uint32_t cores = 0;
  std::uint64_t memory_bytes = 0;
  std::string cpu;
  std::string version;
  std::vector<std::string> labels = {};  // key=value
  std::string limits = {};               // how ranks are held to theirs: cgroup2 | cgroup1 | rlimit
  std::vector<ProcessView> processes;
  Drain drain = {};
  std::string score = {};         // what it is blamed for; empty: nothing
  std::uint32_t score_users = 0;  // of how many users
};

struct ClusterCounters {
  std::uint64_t stale_frames = 0;   // of an old session or unknown peer
  std::uint64_t stale_reports = 0;  // of an old generation or an unknown process
  std::uint64_t refused_hellos = 0;
  std::uint64_t recoveries = 0;
  std::uint64_t workers_lost = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t drains = 0;
  std::uint64_t resizes = 0;
  std::uint64_t hangs = 0;
  std::uint64_t quarantines = 0;
};

}  // namespace tutti::coordinator
