// What is executed for an order: tutti-rank, or the program of a `run` job in torchrun's
// environment.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/spec/job_spec.h"
#include "protocol/wire/rank_messages.h"
#include "worker/launcher/launcher.h"

namespace tutti::worker {

inline constexpr const char* kWorkerMark = "TUTTI_WORKER_MARK";
inline constexpr const char* kProcessMark = "TUTTI_PROCESS";
// Names the descriptor of what a worker hands to its successor in the same process (handover.h).
inline constexpr const char* kHandoverName = "TUTTI_WORKER_HANDOVER";

struct PlanSettings {
  std::filesystem::path rank_binary;
  std::string mark;                      // value of kWorkerMark: this worker's state folder
  std::vector<std::string> environment;  // what is inherited, without the cluster's own secrets
};

// This process's environment without TUTTI_TOKEN and what else is not a rank's business.
std::vector<std::string> inherited_environment();

struct RankPlace {
  std::string data_host;       // on which it listens for peers of other nodes; empty: it has none
  std::string cores;           // for its threads (core_share.h); empty: where the system puts them
  std::vector<int> cpus = {};  // that the system may put them on then; empty: on any
};
LaunchPlan plan_rank(const PlanSettings& settings, const wire::StartRank& start,
                     const RankPlace& place = {});

struct ProgramGroup {
  wire::FormGroup group;
  std::uint32_t local_rank = 0;
  std::uint32_t local_size = 1;
  std::vector<std::string> local_devices = {};  // UUIDs, by local rank; empty: they have none
};

// Specs by their text: the tasks of an array share one.
class SpecCache {
 public:
  // Valid until the next call. Errors: those of the parser.
  Result<const spec::JobSpec*> parse(const std::string& yaml);

 private:
  static constexpr std::size_t kSpecsMax = 64;
  std::map<std::string, spec::JobSpec> specs_;
};

// The folder it names may not be there yet. Errors: invalid_argument (the spec, the address of rank
// 0).
Result<LaunchPlan> plan_program(const PlanSettings& settings, SpecCache& specs,
                                const wire::StartRank& start, const ProgramGroup& group);

}  // namespace tutti::worker
