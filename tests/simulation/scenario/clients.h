// The clients of a scenario: they ask, ask again when a connection breaks or no answer comes, and
// remember what they were told.
//
// A submit is repeated with its key until there is an answer, as the CLI does; a refusal for want
// of space or service is tried again.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/cluster/cluster_messages.h"
#include "tests/simulation/cluster/sim_coordinator.h"
#include "tests/simulation/workloads/workloads.h"

namespace tutti::simulation {

struct SentRequest {
  std::string what;  // for people
  std::string job;   // its name; empty: it is not about one
  Instant sent = {};
  std::uint64_t life = 0;  // of the coordinator
  bool answered = false;
  bool other_spec = false;  // the key of an accepted job, with another spec
  Duration deadline{0};     // of a drain; `job` is the node then
};

class Clients {
 public:
  Clients(World& world, RankWorld& ranks, SimCoordinator& coordinator)
      : world_(world), ranks_(ranks), coordinator_(coordinator) {}

  void begin(const Plan& plan);

  // What workloads' acts do.
  void submit(const PlannedJob& job);
  void submit_once(const PlannedJob& job);
  void submit_again(const std::string& name);
  void submit_other(const std::string& name);
  void cancel(const std::string& name, const std::string& reason);
  // With a checkpoint first.
  void cancel_saving(const std::string& name, const std::string& reason);
  // One of an array; once.
  void cancel_task(const std::string& name, std::uint32_t index);
  // Until it is answered.
  void drain(const std::string& node, Duration deadline);
  void undrain(const std::string& node);
  // The node that runs one of the job's processes, for some time; nothing if none runs.
  void drain_under(const std::string& name, std::size_t rank, const PlannedDrain& drain);
  // What the coordinator's configuration has.
  void set_quotas(const std::map<std::string, std::string>& quotas);
  // The time of day goes on, and nothing happens meanwhile.
  void pass_time(Duration by) { world_.step_wall(by); }
  void inject(const std::string& name, std::uint32_t rank, coordinator::FaultAction action);
  void inject_worker(const std::string& worker, coordinator::FaultAction action);

  void answered(const coordinator::Answer& answer);

  // What they know.
  const std::map<std::string, PlannedJob>& jobs() const { return jobs_; }  // by name
  const std::map<std::string, JobId>& accepted() const { return accepted_; }
  // Names of which the newest submit was answered, with a refusal.
  const std::set<std::string>& refused() const { return refused_; }
  // Names that were refused for good.
  const std::set<std::string>& given_up() const { return given_up_; }
  const std::set<std::string>& cancelled() const { return cancelled_; }
  const std::map<std::uint64_t, SentRequest>& requests() const { return requests_; }
  // Nodes that are drained as far as clients were told, and by when they must be empty.
  const std::map<std::string, Instant>& drained() const { return drained_; }
  // Every planned job has its answer, and every act was done.
  bool content() const;

 private:
  coordinator::RequestId send(SentRequest request);
  void ask(const PlannedJob& job);
  bool knows_all(const std::vector<PlannedAfter>& after) const;
  void name_jobs(const std::vector<PlannedAfter>& after, spec::AfterSpec& out) const;
  void ask_to_cancel(const std::string& name, coordinator::CancelJob cancel);
  void drain_again(const std::string& node, Duration deadline);
  void undrain_again(const std::string& node);
  void done(const SentRequest& request);
  void accept(const SentRequest& request, const coordinator::JobAccepted& accepted);
  void refuse(coordinator::RequestId id, const SentRequest& request, const Error& error);

  World& world_;
  RankWorld& ranks_;
  SimCoordinator& coordinator_;
  std::map<std::string, PlannedJob> jobs_;
  std::map<std::string, JobId> accepted_;
  std::set<std::string> refused_;
  std::map<std::string, coordinator::RequestId> newest_submit_;
  std::set<std::string> given_up_;  // refused for good
  std::set<std::string> cancelled_;
  std::map<std::uint64_t, SentRequest> requests_;
  std::uint64_t next_request_ = 1;
  std::size_t acts_left_ = 0;
  std::map<std::string, Instant> drained_;
  std::set<std::string> to_undrain_;
};

}  // namespace tutti::simulation
