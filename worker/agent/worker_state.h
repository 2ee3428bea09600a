// A worker's decisions: joins the cluster, obeys numbered orders, watches its processes, reports.
//
// Pure: time comes with each input, chance from the seed in the settings; effects are performed, in
// order, by the host (worker_host.h) or the simulator. Nothing here is durable: a worker that
// starts anew has no processes (they die with it) and says so in its Hello.
//
//   greeting --Welcome--> joined --lease over, LinkLost--> greeting ...
//
// A process goes starting -> ready -> formed -> (broken -> ready ...) -> finished -> gone; it is
// forgotten when its spools are with the coordinator. A `run` program is launched at FormGroup.
//
// What it promises: an order is done once and in order within a session; an order of an older
// generation than the process was ordered into is dropped; a process id is started once; every exit
// is reported until it is acknowledged, over any number of sessions; silence of the coordinator
// ends no process, except `run` programs after their order's stop_after: no number fences their
// effects, and the coordinator starts their successors once this and its lease are over.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/base/clock.h"
#include "protocol/base/rng.h"
#include "protocol/wire/sequencer.h"
#include "worker/agent/spool_sender.h"
#include "worker/agent/worker_messages.h"

namespace tutti::worker {

// The host calls Tick at least this often.
inline constexpr Duration kTickPeriod = std::chrono::milliseconds(50);
// Ids of ended processes that are remembered, so that a late order cannot start one again.
inline constexpr std::size_t kEndedMax = 4096;
// Unacknowledged reports; above it only exits are taken, up to the queue's own limit.
inline constexpr std::size_t kReportsMax = 3072;
// One step record; longer ones are dropped with a note.
inline constexpr std::size_t kStepLineBytesMax = std::size_t{64} << 10;

struct WorkerSettings {
  wire::Hello hello;       // who we are; processes and exits are filled in by the state
  std::uint64_t seed = 1;  // of the jitter between attempts to join
  Duration hello_wait = std::chrono::milliseconds(1'000);  // an answer takes no longer
  Duration hello_wait_max = std::chrono::milliseconds(4'000);
  Duration stop_grace = std::chrono::milliseconds(2'000);  // of ranks when the worker ends
};

class WorkerState {
 public:
  explicit WorkerState(WorkerSettings settings);

  // The first effects: Reconnect.
  Effects start(Instant now);
  Effects on(Instant now, const Input& input);

  // For checkers and tests.
  bool joined() const { return joined_; }
  bool ended() const { return ended_; }
  SessionId session() const { return session_; }
  std::vector<wire::ProcessState> processes() const;  // living
  std::size_t unacknowledged() const { return reports_.size(); }
  std::uint64_t stale_frames() const { return stale_frames_; }

 private:
  struct Process {
    wire::StartRank start;
    wire::ProcessState state;
    bool program = false;  // of kind run
    bool launched = false;
    bool gone = false;  // its exit was reported; its spools may not be sent yet
    bool stop_ordered = false;
    Generation group_sent;                    // the last whose FormGroup was passed on
    std::optional<wire::RankReady> ready;     // of the current generation
    std::optional<wire::GroupFormed> formed;  // of the current generation
    wire::RankFinished finished;              // its process is 0 until it is said
    std::optional<Instant> start_deadline;
    std::optional<Instant> kill_at;
    wire::FailureClass failure = wire::FailureClass::none;  // why this worker ends it, if it does
    std::string reason;
  };

  // Inputs: worker_state.cc.
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

  void on_frame(const FrameReceived& frame, const wire::Welcome& message);
  void on_frame(const FrameReceived& frame, const wire::Refused& message);
  void on_frame(const FrameReceived& frame, const wire::HeartbeatAnswered& message);
  void on_frame(const FrameReceived& frame, const wire::ReportsAcked& message);
  void on_frame(const FrameReceived& frame, const wire::SpoolAcked& message);
  template <class Order>
  void on_frame(const FrameReceived& frame, const Order& order);

  // Orders and what ranks say: worker_orders.cc.
  void on_order(const wire::StartRank& order);
  void on_order(const wire::Regroup& order);
  void on_order(const wire::FormGroup& order);
  void on_order(const wire::AbortGeneration& order);
  void on_order(const wire::StopRank& order);
  void on_order(const wire::CommitCheckpoint& order);
  void on_order(const wire::SetFlags& order);
  void on_order(const wire::SignalRank& order);

  void on_rank(Process& process, const wire::RankReady& message);
  void on_rank(Process& process, const wire::GroupFormed& message);
  void on_rank(Process& process, const wire::GenerationBroken& message);
  void on_rank(Process& process, const wire::FirstStepDone& message);
  void on_rank(Process& process, const wire::CheckpointPart& message);
  void on_rank(Process& process, const wire::CheckpointCommitted& message);
  void on_rank(Process& process, const wire::RankFinished& message);
  void on_rank(Process& process, const wire::StepReported& message);
  void on_rank(Process& process, const wire::RankProgress& message);

  std::optional<std::string> refusal(const wire::StartRank& order) const;
  void launch_program(Process& process, const wire::FormGroup& group);
  void stop_process(Process& process, Duration grace, std::string_view reason);
  void refuse_start(const wire::StartRank& order, std::string_view reason);
  void report_unknown(JobId job, Generation generation, ProcessId process);
  void ready(Process& process, const wire::RankReady& message);
  bool is_stale(const Process& process, Generation generation, std::string_view what);
  Process* living(ProcessId id);

  void reconnect(std::string_view why);
  void begin_stop(int exit_code, std::string message);
  void tick_link();
  void tick_processes();
  void tick_stop();
  void tick_silence();
  void flush();
  void report(wire::FromWorker message);
  void report_exit(Process& process, wire::RankExited exit);
  void blame(const Process& process, wire::RankExited& exit) const;
  void remember_ended(ProcessId id);
  void release_if_done(ProcessId id);
  Duration jitter(Duration up_to);
  void note(std::string text) { emit(Note{std::move(text)}); }
  template <class T>
  void emit(T effect) {
    effects_.push_back(std::move(effect));
  }

  WorkerSettings settings_;
  Rng rng_;
  Instant now_;

  bool joined_ = false;
  SessionId session_;
  std::uint64_t greeting_ = 0;  // Hellos sent
  Instant hello_deadline_;
  std::uint32_t attempts_ = 0;
  Duration heartbeat_{std::chrono::milliseconds(500)};
  Duration lease_{std::chrono::milliseconds(5'000)};
  Instant next_heartbeat_;
  Instant answered_at_;
  wire::ReceiveGate orders_;
  wire::SendQueue<wire::FromWorker> reports_;

  SpoolSender spools_;
  std::map<ProcessId, Process> processes_;
  std::set<ProcessId> ended_ids_;
  std::deque<ProcessId> ended_order_;

  bool stopping_ = false;
  bool ended_ = false;
  Quit quit_;
  std::optional<Instant>
      quit_at_;         // once all processes are gone: reports are waited for until then
  Instant stop_bound_;  // whatever still lives by then is left to the parent-death signal

  std::uint64_t stale_frames_ = 0;
  Effects effects_;
};

}  // namespace tutti::worker
