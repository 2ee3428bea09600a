#include "coordinator/cluster_host.h"

#include <malloc.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "coordinator/cluster/durable.h"
#include "protocol/base/clock.h"
#include "protocol/base/log.h"
#include "protocol/base/secret.h"
#include "protocol/wire/link.h"
#include "protocol/wire/untaken.h"

namespace tutti::coordinator {

namespace {

// More than this undecided for want of disk space: a full history of jobs cancelled at once, and
// what is said of each.
constexpr std::size_t kPendingFactsMax = 200'000;
constexpr std::size_t kPendingEventsMax = 200'000;
// A part of what a line is worth (life/line.h).
constexpr Duration kGather = std::chrono::milliseconds(5);
// A full disk's ledger tries again soon: ranks that go on writing checkpoints, none of which is
// committed or pruned meanwhile, take whatever becomes free. A try that is long is made less often.
constexpr Duration kLedgerRetryMin = std::chrono::milliseconds(20);
constexpr Duration kLedgerRetryMax = std::chrono::seconds(1);
constexpr int kLedgerRest = 20;  // times a try's own duration
// Nobody has waited for the ledger for so long: a good time for what it has to do besides.
constexpr Duration kTendAfter = std::chrono::milliseconds(50);
constexpr std::size_t kSecretBytes = 32;
constexpr std::uint64_t kSnapshotsPerTrim = 20;
// How often the strand is asked how long a message waits for its turn.
constexpr Duration kLagPeriod = std::chrono::seconds(1);

Envelope envelope_of(Input input) {
  return {monotonic_now(), wall_now(), random_hex(kSecretBytes), std::move(input)};
}

wire::FrameHeader in_session(SessionId session) {
  wire::FrameHeader header;
  header.session = session;
  return header;
}

// Somebody waits for it to be durable: all but acknowledgements, news, and starts that stand in
// line.
bool is_urgent(const Effect& effect) {
  if (const auto* frame = std::get_if<SendToWorker>(&effect)) {
    const auto* start = std::get_if<wire::StartRank>(&frame->message);
    if (start != nullptr) return !start->queue;
    return !std::holds_alternative<wire::ReportsAcked>(frame->message);
  }
  return !std::holds_alternative<JobChanged>(effect);
}

template <class T>
void move_to_back(std::vector<T>& to, std::vector<T>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

ClusterHost::ClusterHost(actor::Runtime& runtime, ClusterHostLinks links)
    : host_(runtime, {.name = "cluster", .mailbox_max = 16'384}), links_(std::move(links)) {}

ClusterHost::~ClusterHost() { close(); }

Result<> ClusterHost::open(const ClusterHostOptions& options, ClusterSettings settings,
                           std::unique_ptr<Ledger> ledger) {
  ledger_ = std::move(ledger);
  Result<Past> past = ledger_->recover();
  if (!past) return past.error();
  if (Result<> listening = listen(options); !listening) return listening;
  settings.liveness_port = liveness_->port();
  join_token_ = settings.join_token;
  state_ = std::make_unique<ClusterState>(std::move(settings));
  links_.access->restore(past->access, past->last_access);
  last_audit_ = past->last_audit;
  state_->restore(past->snapshot);
  for (const Fact& fact : past->facts) state_->replay(fact);
  sweep();
  take(state_->begin(monotonic_now(), wall_now(), past->last_event, links_.stores->newest_left()));
  expire_tokens();
  measure_lag();
  return {};
}

// Removes records of jobs that were forgotten, which a crash kept from being removed. Those of
// numbers that the journal has not come to (it was put back) belong to another journal than this.
void ClusterHost::sweep() {
  std::vector<JobId> forgotten;
  for (const JobId job : links_.stores->jobs_on_disk()) {
    if (state_->knows(job)) {
      links_.stores->bring_back(job);
    } else if (job >= state_->next_job()) {
      links_.stores->set_aside(job);
    } else {
      forgotten.push_back(job);
    }
  }
  if (!forgotten.empty()) links_.stores->forget_all(std::move(forgotten));
}

Result<> ClusterHost::listen(const ClusterHostOptions& options) {
  auto liveness = open_port(options.liveness, [&](std::uint16_t port) {
    transport::LivenessListener::Handlers handlers;
    handlers.on_ended = [this](const std::string& token) {
      const auto found = session_of_token_.find(token);
      if (found != session_of_token_.end()) handle(WorkerDisconnected{found->second});
    };
    return transport::LivenessListener::open(host_, options.host, port, std::move(handlers));
  });
  if (!liveness) return liveness.error();
  liveness_ = *std::move(liveness);
  options_ = options;
  return listen_for_workers();
}

void ClusterHost::close() {
  if (std::exchange(closed_, true)) return;
  server_.reset();
  liveness_.reset();
  host_.close();
}

const ClusterState& ClusterHost::settled_state() {
  const bool pending = !facts_.empty() || !access_.empty() || !audit_.empty();
  if (pending && !ledger_failing_) flush();
  return *state_;
}

void ClusterHost::handle(Input input) {
  if (closed_) return;
  Envelope envelope = envelope_of(std::move(input));
  envelope.durable_through = durable_;
  const Instant begun = envelope.now;
  Decision decision = state_->on(envelope);
  ++counters_.decisions;
  counters_.decision_seconds.observe(to_seconds(monotonic_now() - begun));
  take(std::move(decision));
}

void ClusterHost::take(Decision decision) {
  note_changes(decision.effects);
  note_own_changes(decision);
  unsay_withdrawn(decision);
  for (const Effect& effect : decision.immediate) {
    std::visit([this](const auto& value) { perform(value); }, effect);
  }
  if (decision.number != 0) decided_ = decision.number;
  // What cannot leave for want of disk space would only pile up: orders are sent again, and reports
  // that are not acknowledged come again.
  if (ledger_failing_) {
    for (const Fact& fact : decision.facts) pending_ends_.note(fact, *state_);
    std::erase_if(decision.effects, [](const Effect& effect) {
      const auto* frame = std::get_if<SendToWorker>(&effect);
      return frame != nullptr && !std::holds_alternative<wire::Welcome>(frame->message);
    });
  }
  urgent_ = urgent_ || std::any_of(decision.effects.begin(), decision.effects.end(), is_urgent);
  move_to_back(facts_, decision.facts);
  move_to_back(events_, decision.events);
  move_to_back(effects_, decision.effects);
  if (facts_.size() > kPendingFactsMax || events_.size() > kPendingEventsMax ||
      audit_.size() > kPendingEventsMax) {
    return end_with(
        {ErrorCode::exhausted, "too much has been decided that the full disk does not take"});
  }
  flush_soon();
}

// Whatever is already waiting in the mailbox belongs to the same turn. What nobody waits for is
// gathered over several turns while tasks stand in line at their workers (one sync for the ends of
// many of them), and where it is events alone: what is said of a job right after its submit goes
// with the next sync, which the next submit would else wait for.
void ClusterHost::flush_soon() {
  if (std::exchange(flush_due_, true)) return;
  host_.arm(Duration::zero(), [this] {
    flush_due_ = false;
    const Duration left = flushed_at_ + kGather - monotonic_now();
    const bool only_events = facts_.empty() && access_.empty() && audit_.empty();
    const bool gathers = !urgent_ && (only_events || state_->has_lines());
    if (left <= Duration::zero() || !gathers) {
      end_turn();
    } else {
      if (gather_ == 0) gather_ = host_.arm(left, [this] { end_turn(); });
      rearm();
    }
  });
}

void ClusterHost::end_turn() {
  host_.cancel(std::exchange(gather_, 0));
  if (!ledger_failing_) flush();
  rearm();
}

bool ClusterHost::append_pending() {
  // Numbered without gaps: what is withdrawn before it is durable leaves none.
  for (std::size_t i = 0; i < audit_.size(); ++i) audit_[i].seq = last_audit_ + 1 + i;
  const LedgerBatch batch{facts_, events_, access_, audit_};
  if (batch.empty()) return true;
  const Instant begun = monotonic_now();
  const Result<> appended = ledger_->append(batch);
  if (appended) {
    counters_.sync_seconds.observe(to_seconds(monotonic_now() - begun));
    ++counters_.syncs;
    counters_.facts += facts_.size();
    last_audit_ += audit_.size();
    return true;
  }
  if (appended.error().code != ErrorCode::exhausted) {
    end_with(appended.error());
    return false;
  }
  if (!std::exchange(ledger_failing_, true)) {
    TUTTI_LOG_ERROR("coordinator", "{}; submits are refused until there is space",
                    appended.error().message);
    for (const Fact& fact : facts_) pending_ends_.note(fact, *state_);
    handle(LedgerFailed{durable_, appended.error().message});
  }
  give_up_waiting();
  const Duration rest = kLedgerRest * (monotonic_now() - begun);
  host_.arm(std::clamp(rest, kLedgerRetryMin, kLedgerRetryMax), [this] { flush(); });
  return false;
}

// Of a turn only the last acknowledgement to each peer says anything.
void ClusterHost::perform_all(const std::vector<Effect>& effects) {
  std::map<SessionId, const Effect*> last;
  const auto is_ack = [](const SendToWorker& frame) {
    return std::holds_alternative<wire::ReportsAcked>(frame.message);
  };
  for (const Effect& effect : effects) {
    const auto* frame = std::get_if<SendToWorker>(&effect);
    if (frame != nullptr && is_ack(*frame)) last[frame->session] = &effect;
  }
  for (const Effect& effect : effects) {
    const auto* frame = std::get_if<SendToWorker>(&effect);
    if (frame != nullptr && is_ack(*frame) && last[frame->session] != &effect) continue;
    std::visit([this](const auto& value) { perform(value); }, effect);
  }
}

void ClusterHost::flush() {
  if (closed_ || !append_pending()) return;
  durable_ = decided_;
  urgent_ = false;
  flushed_at_ = monotonic_now();
  for (const Fact& fact : facts_) meter_.on(fact, *state_);
  facts_.clear();
  audit_.clear();
  pending_ends_.clear();
  const std::vector<Event> events = std::exchange(events_, {});
  const std::vector<Effect> effects = std::exchange(effects_, {});
  perform_all(effects);
  apply_access();
  for (const Event& event : events) {
    if (event.job) links_.notices->publish(event.job);
  }
  if (!events.empty()) links_.notices->publish(JobId{});
  if (std::exchange(ledger_failing_, false)) {
    TUTTI_LOG_INFO("coordinator", "the ledger takes facts again");
    handle(LedgerRecovered{});
  } else if (facts_.empty() && snapshots_.is_due(ledger_->facts_since_snapshot(), flushed_at_)) {
    // In a turn of its own: what was answered in this one leaves first.
    if (!std::exchange(snapshot_due_, true))
      host_.arm(Duration::zero(), [this] { write_snapshot(); });
  }
  tend_soon();
}

// A log that is long is not left alone for want of a rest, but what was answered leaves first.
void ClusterHost::tend_soon() {
  if (ledger_->log_pages() >= kLogPages) {
    if (!std::exchange(tend_due_, true)) host_.arm(Duration::zero(), [this] { tend_ledger(); });
  } else if (tend_ == 0) {
    tend_ = host_.arm(kTendAfter, [this] {
      tend_ = 0;
      if (monotonic_now() - flushed_at_ < kTendAfter) return tend_soon();
      tend_ledger();
    });
  }
}

void ClusterHost::tend_ledger() {
  tend_due_ = false;
  if (closed_ || ledger_failing_) return;
  const Instant begun = monotonic_now();
  const Result<bool> more = ledger_->tend();
  counters_.checkpoint_seconds.observe(to_seconds(monotonic_now() - begun));
  const bool failed = !more && more.error().code != ErrorCode::exhausted;
  if (failed && !tend_failed_) {
    TUTTI_LOG_WARNING("coordinator", "{}; its log grows until that works", more.error().message);
  }
  tend_failed_ = failed;
  if (more && *more) tend_soon();
}

void ClusterHost::write_snapshot() {
  // It says what has been decided, so all of that must be durable.
  if (!facts_.empty() && !ledger_failing_) flush();
  snapshot_due_ = false;
  if (closed_ || ledger_failing_ || !facts_.empty()) return;
  const Instant begun = monotonic_now();
  const Result<> written = ledger_->takes_changes() ? ledger_->write_changes(state_->changes())
                                                    : ledger_->write_snapshot(state_->snapshot());
  if (written) {
    state_->begin_changes();
    snapshots_.wrote();
    ++counters_.snapshots;
    counters_.snapshot_seconds.observe(to_seconds(monotonic_now() - begun));
  } else {
    snapshots_.failed(monotonic_now());
    TUTTI_LOG_WARNING("coordinator", "no snapshot: {}", written.error().message);
  }
  // What was copied goes back to the system.
  if (counters_.snapshots % kSnapshotsPerTrim == 0) ::malloc_trim(0);
}

// What waits behind others on the strand, of decisions, syncs, snapshots and answers to readers.
void ClusterHost::measure_lag() {
  host_.arm(kLagPeriod, [this, due = monotonic_now() + kLagPeriod] {
    counters_.lag_seconds.observe(to_seconds(std::max(Duration::zero(), monotonic_now() - due)));
    measure_lag();
  });
}

void ClusterHost::rearm() {
  const std::optional<Instant> due = state_->next_due();
  // One that comes too early finds nothing due, which costs less than to arm it anew each time.
  if (tick_ != 0 && due && *due >= tick_due_) return;
  host_.cancel(tick_);
  tick_ = 0;
  if (!due || closed_) return;
  tick_due_ = *due;
  const Duration wait = std::max(Duration::zero(), *due - monotonic_now());
  tick_ = host_.arm(wait, [this] {
    tick_ = 0;
    handle(Tick{});
  });
}

void ClusterHost::end_with(const Error& error) {
  TUTTI_LOG_ERROR("coordinator", "cannot go on: {}", error.message);
  close();
  links_.on_fatal(error);
}

void ClusterHost::on_frame(const std::string& peer, const std::string& frame) {
  Result<wire::Decoded<wire::FromWorker>> decoded =
      wire::decode_frame<wire::FromWorker>(frame, frames_);
  if (!decoded) {
    const auto header = wire::header_of_untaken(frame);
    if (header && state_->owns_session(peer, header->session)) {
      TUTTI_LOG_WARNING("coordinator", "a report of a newer worker is ignored: {}",
                        decoded.error().message);
      return handle(UnknownReport{peer, header->session, header->sequence});
    }
    TUTTI_LOG_DEBUG("coordinator", "a frame was refused: {}", decoded.error().message);
    return;
  }
  const wire::FrameHeader& header = decoded->header;
  if (auto* data = std::get_if<wire::SpoolData>(&decoded->message)) {
    return store_spool(peer, header.session, std::move(*data));
  }
  if (auto* hello = std::get_if<wire::Hello>(&decoded->message)) admit(*hello);
  if (const auto* exit = std::get_if<wire::RankExited>(&decoded->message); exit && exit->silent) {
    links_.stores->expect_nothing(exit->job, exit->process);
  }
  handle(WorkerFrame{peer, header.session, header.sequence, std::move(decoded->message)});
}

void ClusterHost::store_spool(const std::string& peer, SessionId session, wire::SpoolData data) {
  if (!state_->owns_session(peer, session)) {
    ++frames_.stale_session;
    return;
  }
  const JobId job = data.job;
  if (!state_->knows(job)) {
    // Nobody wants it any more: the worker may drop it.
    const wire::SpoolAcked ack{data.process, data.stream, data.offset + data.bytes.size(),
                               data.end};
    return send(peer, ack, in_session(session));
  }
  const Result<> taken = links_.stores->store(
      std::move(data), [this, peer, session, job](Result<StoreOutcome> outcome) {
        // A full mailbox loses the acknowledgement; the worker sends the chunk again.
        static_cast<void>(host_.tell([this, peer, session, job, stored = std::move(outcome)] {
          on_stored(peer, session, job, stored);
        }));
      });
  if (!taken)
    TUTTI_LOG_WARNING("coordinator", "a spool chunk of job {} was refused: {}", to_string(job),
                      taken.error().message);
}

void ClusterHost::on_stored(const std::string& peer, SessionId session, JobId job,
                            const Result<StoreOutcome>& outcome) {
  if (!outcome) {
    if (spools_failing_.insert(job).second) {
      TUTTI_LOG_ERROR("coordinator", "records of job {} cannot be stored: {}", to_string(job),
                      outcome.error().message);
      handle(SpoolFailed{job, outcome.error().message});
    }
    return;
  }
  spools_failing_.erase(job);
  if (outcome->steps.full)
    handle(SpoolFailed{job, "there are as many step records as are kept of one job"});
  send(peer, outcome->ack, in_session(session));
  if (outcome->steps.mismatch) {
    handle(StepHashMismatch{job, outcome->steps.mismatch->step, outcome->steps.mismatch->message});
  } else if (outcome->steps.count > 0) {
    handle(StepsRecorded{job, outcome->steps.newest});
  }
}

void ClusterHost::send(const std::string& peer, const wire::ToWorker& message,
                       wire::FrameHeader header) {
  if (closed_) return;
  const bool tells = next_connection_.control_port != 0 &&
                     std::holds_alternative<wire::HeartbeatAnswered>(message);
  const Result<std::string> frame = wire::encode_frame<wire::ToWorker>(
      tells ? wire::ToWorker(next_connection_) : message, header);
  if (!frame) {
    TUTTI_LOG_ERROR("coordinator", "cannot send to {}: {}", peer, frame.error().message);
    return;
  }
  // What is lost is sent again (orders) or asked for again (the rest); a peer that is gone is seen
  // by its lease.
  const Result<> sent = server_->send(peer, *frame);
  if (!sent)
    TUTTI_LOG_DEBUG("coordinator", "{} to {}: {}", wire::message_name(message), peer,
                    sent.error().message);
}

void ClusterHost::perform(const SendToWorker& effect) {
  if (const auto* start = std::get_if<wire::StartRank>(&effect.message)) {
    links_.stores->expect(start->job, start->process);
  }
  wire::FrameHeader header = in_session(effect.session);
  header.generation = effect.generation;
  header.sequence = effect.sequence;
  send(effect.peer, effect.message, header);
}

void ClusterHost::perform(const WatchSession& effect) {
  session_of_token_[effect.token] = effect.session;
  token_of_session_[effect.session] = effect.token;
  liveness_->expect(effect.token);
}

void ClusterHost::perform(const UnwatchSession& effect) {
  const auto found = token_of_session_.find(effect.session);
  if (found == token_of_session_.end()) return;
  liveness_->forget(found->second);
  session_of_token_.erase(found->second);
  token_of_session_.erase(found);
}

void ClusterHost::perform(const Answer& effect) {
  const auto found = waiting_.find(effect.request);
  if (found == waiting_.end()) return;
  const Answered answered = std::move(found->second.answered);
  waiting_.erase(found);
  answered(effect.body);
}

void ClusterHost::perform(const ForgetJob& effect) {
  spools_failing_.erase(spools_failing_.lower_bound(effect.job),
                        spools_failing_.upper_bound(JobId{effect.job.value + effect.tasks}));
  links_.stores->forget(effect.job, effect.tasks);
}

}  // namespace tutti::coordinator
