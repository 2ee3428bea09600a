// A worker's decisions: joins the cluster, obeys numbered orders, watches its processes, reports.
//
// Pure: time comes with each input, chance from the seed in the settings; effects are performed by the
// host (worker_host.h) or the simulator. Nothing here is durable: a worker that starts anew has no processes
// (they die with it) and says so in its Hello.
//
//   greeting --Welcome--> joined --lease over, LinkLost--> greeting ...
//
// A process goes starting -> ready -> formed -> (broken -> ready ...) -> finished -> gone; it is forgotten
// when its exit is acknowledged and its spools are with the coordinator.
//
// What it promises: an order is done once and in order within a session; an order of an older generation than
// the process was ordered into is dropped; a process id is started once; every exit is reported until it is
// acknowledged, over any number of sessions; silence of the coordinator ends no process.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "protocol/base/clock.h"
#include "protocol/base/rng.h"
#include "protocol/wire/sequencer.h"
#include "worker/agent/spool_sender.h"
#include "worker/agent/worker_messages.h"

namespace tutti::worker {

// The host calls Tick at least this often.
inline constexpr Duration kTickPeriod = std::chrono::milliseconds(50);

struct WorkerSettings {
  wire::Hello hello;  // who we are; processes and exits are filled in by the state
  std::uint64_t seed = 1;  // of the jitter between attempts to join
  Duration hello_wait = std::chrono::milliseconds(1'000);  // an answer takes no longer, or we try anew
  Duration hello_wait_max = std::chrono::milliseconds(4'000);
  Duration stop_grace = std::chrono::milliseconds(2'000);  // of ranks when the worker is told to end
};

class WorkerState {
 public:
  explicit WorkerState(WorkerSettings settings);

  // The first effects: Reconnect.
  Effects start(Instant now);
  Effects on(Instant now, const Input& input);

  // For checkers and tests.
  bool joined() const { return phase_ == Phase::joined; }
  SessionId session() const { return session_; }
  std::vector<wire::ProcessState> processes() const;
  std::uint64_t stale_frames() const { return stale_frames_; }

 private:
  enum class Phase { greeting, joined, stopping, ended };

  struct Process {
    wire::StartRank start;
    wire::ProcessState state;
    bool program = false;     // of kind run
    bool launched = false;    // StartProcess was ordered
    bool alive = false;       // ProcessStarted, and no ProcessExited yet
    bool gone = false;        // its exit was reported
    bool stop_sent = false;
    bool stop_ordered = false;
    Generation group_sent;    // FormGroup of this generation was passed on
    std::optional<wire::RankReady> ready;  // of the current generation
    std::optional<Instant> start_deadline;
    std::optional<Instant> kill_at;
    std::optional<wire::StopRank> stop;    // ordered before the process was there
    wire::RankFinished finished;           // process is 0 until it said so
    std::string kill_reason;
    wire::FailureClass kill_failure = wire::FailureClass::none;
  };

  void on_input(const FrameReceived& input);
  void on_input(const Connected& input);
  void on_input(const LinkLost& input);
  void on_input(const RankSpoke& input);
  void on_input(const RankLinkLost& input);
  void on_input(const AddressReserved& input);
  void on_input(const ProcessStarted& input);
  void on_input(const StartFailed& input);
  void on_input(const ProcessExited& input);
  void on_input(const SpoolGrew& input);
  void on_input(const SpoolRead& input);
  void on_input(const SpoolFound& input);
  void on_input(const Tick& input);
  void on_input(const StopRequested& input);

  void on_frame(const wire::Welcome& message);
  void on_frame(const wire::Refused& message);
  void on_frame(const wire::HeartbeatAnswered& message);
  void on_frame(const wire::ReportsAcked& message);
  void on_frame(const wire::SpoolAcked& message);

  void on_order(const wire::StartRank& order);
  void on_order(const wire::Regroup& order);
  void on_order(const wire::FormGroup& order);
  void on_order(const wire::AbortGeneration& order);
  void on_order(const wire::StopRank& order);
  void on_order(const wire::CommitCheckpoint& order);
  void on_order(const wire::SetFlags& order);
  void on_order(const wire::SignalRank& order);

  void on_rank(Process& process, const wire::RankReady& report);
  void on_rank(Process& process, const wire::GroupFormed& report);
  void on_rank(Process& process, const wire::GenerationBroken& report);
  void on_rank(Process& process, const wire::FirstStepDone& report);
  void on_rank(Process& process, const wire::CheckpointPart& report);
  void on_rank(Process& process, const wire::CheckpointCommitted& report);
  void on_rank(Process& process, const wire::RankFinished& report);
  void on_rank(Process& process, const wire::StepReported& report);
  void on_rank(Process& process, const wire::RankProgress& report);

  void reconnect();
  void say_hello();
  void flush();
  void launch_program(Process& process, const wire::FormGroup& group);
  void stop_process(Process& process, const wire::StopRank& order);
  void report(const wire::FromWorker& message);
  void report_exit(Process& process, wire::RankExited exit);
  void report_never_ran(const wire::RankExited& exit);
  void forget_if_done(ProcessId id);
  void remember_ended(ProcessId id);
  bool is_stale(const Process& process, Generation generation, std::string_view what);
  Process* living(ProcessId id);
  void note(std::string text);
  template <class T>
  void emit(T effect) {
    effects_.push_back(std::move(effect));
  }

  WorkerSettings settings_;
  Rng rng_;
  Instant now_;
  Phase phase_ = Phase::greeting;
  bool stopping_ = false;
  bool connected_ = false;
  SessionId session_;
  Instant hello_deadline_;
  std::uint32_t attempts_ = 0;
  Duration heartbeat_{std::chrono::milliseconds(500)};
  Duration lease_{std::chrono::milliseconds(5'000)};
  Instant next_heartbeat_;
  Instant answered_at_;
  Instant quit_at_;
  wire::ReceiveGate orders_;
  wire::SendQueue<wire::FromWorker> reports_;
  SpoolSender spools_;
  std::map<ProcessId, Process> processes_;
  std::deque<ProcessId> ended_order_;
  std::set<ProcessId> ended_;  // the last kEndedMax ids that are gone: never started again
  std::uint64_t stale_frames_ = 0;
  Effects effects_;
};

}  // namespace tutti::worker
