// Drives a ClusterState by hand: workers that say what a test wants, and every order and answer
// collected.
//
// Effects leave at once, as after a sync that takes no time. Time passes only by pass().
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/cluster/cluster_state.h"

namespace tutti::coordinator::test {

using namespace std::chrono_literals;

spec::JobSpec run_spec(std::uint32_t ranks);
spec::JobSpec train_spec(std::uint32_t ranks, std::uint64_t steps = 100);
spec::JobSpec serve_spec();
wire::HeldState holds(std::uint64_t step, std::uint64_t pending = 0);

class Driver {
 public:
  explicit Driver(ClusterSettings settings = default_settings());

  static ClusterSettings default_settings();

  ClusterState& state() { return *state_; }
  // A successor that knows what was journalled.
  void restart();

  Decision on(Input input);
  // The clock goes on by `duration`; Ticks happen when they are due.
  void pass(Duration duration);
  // Passes a second at a time, in which these workers are heard.
  void live(Duration duration, const std::vector<std::string>& workers = {"a"});
  // The time of day alone is set to another one.
  void set_clock(Duration by) { unix_ms_ += to_ms(by); }
  // The coordinator's process stands still so long; then its Tick is the first to be handled.
  void stand_still(Duration duration);

  // A worker says Hello as a new process; or, the same process, with what it runs.
  void join(const std::string& worker, std::uint32_t slots);
  // With the numerics profiles of a CPU.
  void join_cpus(const std::string& worker, std::uint32_t slots,
                 const std::vector<std::string>& profiles);
  // With a slot for each GPU ("WORKER-0", ...), all of one numerics profile.
  void join_gpus(const std::string& worker, std::uint32_t gpus, const std::string& profile,
                 std::uint64_t memory_bytes = std::uint64_t{80} << 30);
  void join_gpus(const std::string& worker, const std::vector<std::uint64_t>& memory_bytes,
                 const std::string& profile);
  // What its devices exchange by, told when it joins the next time.
  void exchange_by(const std::string& worker, const std::string& what) {
    peers_[worker].hello.exchange = what;
  }
  void rejoin(const std::string& worker, std::vector<wire::ProcessState> processes = {},
              std::vector<wire::RankExited> exits = {});
  void disconnect(const std::string& worker);
  void say(const std::string& worker, wire::FromWorker report);
  // A report of a kind that this version does not know.
  void say_unknown(const std::string& worker);
  void beat(const std::string& worker, std::vector<wire::RankProgress> progress = {},
            std::vector<wire::DeviceReading> readings = {});
  // What the worker would say of a process in the given phase.
  wire::ProcessState state_of(const wire::StartRank& start, wire::ProcessPhase phase) const;

  void drain(const std::string& node, std::uint64_t deadline_ms = 60'000);

  JobId submit(const spec::JobSpec& spec, const std::string& key = {},
               const std::string& yaml = "spec");
  Error submit_refused(const spec::JobSpec& spec, const std::string& key = {},
                       const std::string& yaml = "spec");

  // Orders of one type that were sent since the last take(), in order; acknowledged at once.
  template <class Order>
  std::vector<Order> take() {
    std::vector<Order> out;
    std::erase_if(orders_, [&](const wire::ToWorker& order) {
      const Order* found = std::get_if<Order>(&order);
      if (found != nullptr) out.push_back(*found);
      return found != nullptr;
    });
    return out;
  }
  std::size_t orders_left() const { return orders_.size(); }

  // Answers to StartRank, from the worker that it was sent to.
  void ready(const wire::StartRank& start, wire::HeldState held = {});
  void ready(const wire::StartRank& start, Generation generation, wire::HeldState held);
  void formed(const wire::StartRank& start, const wire::FormGroup& group);
  void finished(const wire::StartRank& start, Generation generation, std::uint64_t step);
  void exited(const wire::StartRank& start, std::int32_t code, std::int32_t signal = 0,
              wire::FailureClass failure = wire::FailureClass::none);
  void broken(const wire::StartRank& start, Generation generation, std::int32_t suspect,
              const std::string& reason, wire::HeldState held);
  // A rank has written its part of the step, or has failed to.
  void write_part(const wire::StartRank& start, Generation generation, std::uint64_t step,
                  std::vector<wire::CheckpointFile> files = {}, const std::string& error = {});
  // Every rank writes its part of the step; the commit that this is followed by.
  wire::CommitCheckpoint write_parts(const std::vector<wire::StartRank>& starts,
                                     Generation generation, std::uint64_t step);
  // The same, and it is committed. Returns what was ordered.
  wire::CommitCheckpoint save(const std::vector<wire::StartRank>& starts, Generation generation,
                              std::uint64_t step);
  // Places, starts and forms the job's first generation; its StartRanks.
  std::vector<wire::StartRank> run_up();

  JobDetail job(JobId id) const { return *state_->job(id); }
  JobState job_state(JobId id) const { return state_->job(id)->summary.state; }
  bool happened(JobId id, EventKind kind) const;
  const std::vector<Fact>& facts() const { return facts_; }
  const std::vector<Event>& events() const { return events_; }
  const std::vector<Effect>& gateway() const { return gateway_; }
  std::optional<AnswerBody> answer(RequestId request) const;
  RequestId last_request() const { return RequestId{requests_}; }
  RequestId next_request() { return RequestId{++requests_}; }

  std::uint64_t durable_through = UINT64_MAX;  // as the host would say

 private:
  struct Peer {
    wire::Hello hello;
    std::string peer;
    SessionId session;
    Sequence reports;
  };

  void take_effects(Decision& decision);
  void hello(Peer& peer);

  ClusterSettings settings_;
  std::unique_ptr<ClusterState> state_;
  Instant now_{1h};
  std::int64_t unix_ms_ = 1'700'000'000'000;
  std::uint64_t draws_ = 0;
  std::uint64_t requests_ = 0;
  std::map<std::string, Peer> peers_;
  std::map<ProcessId, std::string> placed_;  // worker of each StartRank
  std::vector<wire::ToWorker> orders_;
  std::map<std::uint64_t, AnswerBody> answers_;
  std::vector<Fact> facts_;
  std::vector<Event> events_;
  std::vector<Effect> gateway_;
};

}  // namespace tutti::coordinator::test
