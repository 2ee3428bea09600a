// A worker's decisions: joins the cluster, obeys numbered orders, watches its processes, reports.
//
// Pure: time comes with each input, chance from the seed in the settings; effects are performed, in
// order, by the host (worker_host.h) or the simulator. Nothing here is durable: a worker that
// starts anew has no processes (they die with it) and says so in its Hello.
//
//   greeting --Welcome--> joined --lease over, LinkLost--> greeting ...
//
// A process goes starting -> ready -> formed -> (broken -> ready ...) -> finished -> gone; then it
// is forgotten but for its spools, which are once they are with the coordinator. A `run` program is
// launched at FormGroup, or at StartRank if it is alone (at_once); one that may wait for its slot
// (queue) is launched when the process before it is gone, and not while too many wait for the
// coordinator to store what they wrote (SpoolSender).
//
// Told to end (StopRequested), it says WorkerLeaving and lets the coordinator empty it; it ends
// when it is empty, at the notice's end, or when it is told again. What it knows survives in
// SavedState, from which the next binary goes on in the same process (handover.h).
//
// What it promises: an order is done once and in order within a session; an order of an older
// generation than the process was ordered into is dropped; a process id is started once; every exit
// is reported until it is acknowledged, over any number of sessions; silence of the coordinator
// ends no process, except `run` programs after their order's stop_after, and none is begun after
// it: no number fences their effects, and the coordinator starts their successors once this and its
// lease are over. Silence is counted from when that was sent which was answered last: an answer may
// have lain here while this process, or its machine, stood still.
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
#include "worker/agent/saved_state.h"
#include "worker/agent/spool_sender.h"
#include "worker/agent/worker_messages.h"

namespace tutti::worker {

// The host calls Tick at least this often.
inline constexpr Duration kTickPeriod = std::chrono::milliseconds(50);
// Ids of ended processes that are remembered, so that a late order cannot start one again.
inline constexpr std::size_t kEndedMax = 4096;
// Programs that wait for a slot, a worker.
inline constexpr std::size_t kQueuedMax = 1024;
// Unacknowledged reports; above it only those are taken that no Hello repeats, up to the queue's
// own limit.
inline constexpr std::size_t kReportsMax = 3072;
// Parts of checkpoints of one process that wait for a session, the newest: nobody has committed
// those before them, and the job has gone on since.
inline constexpr std::size_t kPartsMax = 4;
// Of the ends that a Hello tells of, the logs' last lines in all, and each one's own words: a frame
// takes 4 MiB, and a thousand programs may have failed meanwhile.
inline constexpr std::size_t kHelloTailBytesMax = std::size_t{1} << 20;
inline constexpr std::size_t kHelloErrorBytesMax = 256;
// One step record; longer ones are dropped with a note.
inline constexpr std::size_t kStepLineBytesMax = std::size_t{64} << 10;

struct WorkerSettings {
  wire::Hello hello;       // who we are; processes and exits are filled in by the state
  std::uint64_t seed = 1;  // of the jitter between attempts to join
  Duration hello_wait = std::chrono::milliseconds(1'000);  // an answer takes no longer
  Duration hello_wait_max = std::chrono::milliseconds(4'000);
  Duration stop_grace = std::chrono::milliseconds(2'000);  // of ranks when the worker ends
  Duration notice = std::chrono::seconds(30);              // before that, to save and stop
};

class WorkerState {
 public:
  explicit WorkerState(WorkerSettings settings);

  // The first effects: Reconnect.
  Effects start(Instant now);
  // Before start: goes on where an earlier binary in this process was.
  void restore(const SavedState& saved);
  SavedState save() const;
  Effects on(Instant now, const Input& input);

  // For checkers and tests.
  bool joined() const { return joined_; }
  bool ended() const { return ended_; }
  // Whether it is on its way out: it is not to be restarted then.
  bool leaving() const { return leaving_until_ || stopping_; }
  SessionId session() const { return session_; }
  std::vector<wire::ProcessState> processes() const;  // living
  // Programs wait for their slots: more than is reported next.
  bool has_line() const { return !queued_.empty(); }
  std::size_t unacknowledged() const { return reports_.size(); }
  std::uint64_t stale_frames() const { return stale_frames_; }

 private:
  using Process = SavedProcess;

  // Inputs: worker_state.cc.
  void on_input(const FrameReceived& input);
  void on_input(const UnknownOrder& input);
  void on_input(const Connected& input);
  void on_input(const LinkLost& input);
  void on_input(const LivenessRefused& input);
  void on_input(const RankSpoke& input);
  void on_input(const RankLinkLost& input);
  void on_input(const AddressReserved& input);
  void on_input(const ProcessStarted& input);
  void on_input(const StartFailed& input);
  void on_input(const ProcessExited& input);
  void on_input(const SpoolGrew& input);
  void on_input(const SpoolRead& input);
  void on_input(const SpoolFound& input);
  void on_input(const DevicesRead& input);
  void on_input(const RestartRefused& input);
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
  void on_order(const wire::BreakWorker& order);

  void on_rank(Process& process, const wire::RankReady& message);
  void on_rank(Process& process, const wire::GroupFormed& message);
  void on_rank(Process& process, const wire::GenerationBroken& message);
  void on_rank(Process& process, const wire::FirstStepDone& message);
  void on_rank(Process& process, const wire::CheckpointPart& message);
  void on_rank(Process& process, const wire::CheckpointCommitted& message);
  void on_rank(Process& process, const wire::RankFinished& message);
  void on_rank(Process& process, const wire::StepReported& message);
  void on_rank(Process& process, const wire::RankProgress& message);

  // Silence of the coordinator, and `run` programs: worker_silence.cc.
  bool out_of_touch(const wire::StartRank& order) const;
  void clear_line(std::uint32_t slot);
  void tick_silence();

  std::optional<std::string> refusal(const wire::StartRank& order) const;
  void launch_program(Process& process, const wire::FormGroup& group);
  void launch_at_once(Process& process);
  void launch_next(std::uint32_t slot);
  void launch_waiting();
  bool holds_slot(std::uint32_t slot) const;
  bool is_cut(const FrameReceived& input) const;
  bool takes(SessionId session, Sequence sequence);
  void acknowledge_orders();
  void stop_process(Process& process, Duration grace, std::string_view reason);
  void refuse_start(const wire::StartRank& order, std::string_view reason);
  void report_unknown(JobId job, Generation generation, ProcessId process);
  void ready(Process& process, const wire::RankReady& message);
  bool is_stale(const Process& process, Generation generation, std::string_view what);
  Process* living(ProcessId id);

  void reconnect(std::string_view why);
  enum class Hurry { no, yes };
  void begin_leaving();
  void begin_stop(int exit_code, std::string message, Hurry hurry = Hurry::no);
  void tick_link();
  void tick_liveness();
  void tick_processes();
  void tick_stop();
  void flush();
  std::vector<wire::RankExited> exits_to_greet_with() const;
  void report(wire::FromWorker message);
  void drop_old_parts(ProcessId process);
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
  std::vector<wire::DeviceReading> readings_;  // the newest
  bool readings_due_ = false;                  // this session's coordinator does not have them
  std::string restart_refused_;                // to be said
  Instant answered_at_;
  Instant asked_at_;     // the newest Hello or heartbeat
  Instant in_touch_at_;  // the coordinator took us for living then, or later
  Instant joined_at_;
  std::uint32_t short_sessions_ = 0;  // in a row
  ConnectLiveness liveness_;          // of this session
  std::optional<Instant> liveness_retry_;
  bool knows_silence_ = false;  // the coordinator does
  Instant cut_until_;           // a fault: nothing is said or heard
  wire::ReceiveGate orders_;
  bool orders_owed_ = false;  // an acknowledgement, at the end of this turn
  wire::SendQueue<wire::FromWorker> reports_;

  SpoolSender spools_;
  std::map<ProcessId, Process> processes_;
  std::vector<ProcessId> gone_;  // of those, since this turn
  std::set<ProcessId> ended_ids_;
  std::deque<ProcessId> ended_order_;
  std::map<std::uint32_t, std::deque<ProcessId>> queued_;  // by slot

  std::optional<Instant> leaving_until_;
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
