// What people ask of the cluster: requests and their answers, changes of access, backups.
#include <algorithm>
#include <utility>

#include "coordinator/cluster_host.h"
#include "protocol/base/clock.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

constexpr std::int64_t kExpiryLookMsMax = 60'000;
// Refusals that are written into the audit: whoever is refused again and again fills no disk.
constexpr std::uint32_t kDeniedMax = 60;
constexpr Duration kDeniedWithin = std::chrono::minutes(1);

constexpr const char* kNotDurable =
    "the coordinator's disk is full; what was asked for is done once there is space, unless the "
    "coordinator ends before";
constexpr const char* kRevokedForNow =
    "it is good no more, but the coordinator's disk is full: that is written down once there is "
    "space, and a coordinator that starts before does not know it; make room";

std::string target_of(JobId job) { return "job " + to_string(job); }

// A request is one that has a number to be answered by.
template <class T>
void number_request(T& input, RequestId request) {
  if constexpr (requires { input.request = request; }) input.request = request;
}

}  // namespace

void ClusterHost::ask(Input input, Caller caller, Answered answered) {
  const RequestId request{++last_request_};
  std::visit([&](auto& each) { number_request(each, request); }, input);
  waiting_[request] = {std::move(answered), std::move(caller), monotonic_now()};
  handle(std::move(input));
  // Where nothing else waits that could share its sync, a turn of its own would only be a wake-up.
  if (!closed_ && urgent_ && !host_.has_mail()) end_turn();
}

void ClusterHost::note_changes(const std::vector<Effect>& effects) {
  for (const Effect& effect : effects) {
    const auto* answer = std::get_if<Answer>(&effect);
    if (answer == nullptr || std::holds_alternative<Error>(answer->body)) continue;
    const auto found = waiting_.find(answer->request);
    if (found == waiting_.end() || found->second.caller.action.empty()) continue;
    const auto* accepted = std::get_if<JobAccepted>(&answer->body);
    if (accepted != nullptr && accepted->existing) continue;
    note_change(found->second.caller,
                accepted != nullptr ? target_of(accepted->job) : found->second.caller.target);
  }
}

// What was asked of a job that the full disk did not take did not happen.
void ClusterHost::unsay_withdrawn(const Decision& decision) {
  for (const Fact& fact : decision.facts) {
    const auto* withdrawn = std::get_if<JobWithdrawn>(&fact);
    if (withdrawn == nullptr) continue;
    const std::string target = target_of(withdrawn->job);
    std::erase_if(audit_, [&](const AuditRecord& record) { return record.target == target; });
  }
}

// What nobody asked for, and an operator wants to find beside what was.
void ClusterHost::note_own_changes(const Decision& decision) {
  Caller own;
  own.user = "tutti";
  for (const Event& event : decision.events) {
    if (event.kind != EventKind::quarantined) continue;
    own.action = "set aside";
    own.detail = event.message;
    note_change(own, "node " + event.worker);
  }
  for (const Fact& fact : decision.facts) {
    const auto* undrained = std::get_if<NodeUndrained>(&fact);
    if (undrained == nullptr || !undrained->keeps_blames) continue;
    own.action = "take back";
    own.detail = "it has stayed";
    note_change(own, "node " + undrained->worker);
  }
}

void ClusterHost::note_change(const Caller& caller, std::string target) {
  audit_.push_back({.unix_ms = wall_now().unix_ms,
                    .user = caller.user,
                    .token = caller.token,
                    .from = caller.from,
                    .action = caller.action,
                    .target = std::move(target),
                    .detail = caller.detail});
}

// While the ledger's disk is full nothing that waits for it can be promised.
void ClusterHost::give_up_waiting() {
  const Instant now = monotonic_now();
  std::vector<Answered> late;
  std::erase_if(waiting_, [&](auto& entry) {
    if (now - entry.second.since < options_.answer_within) return false;
    late.push_back(std::move(entry.second.answered));
    return true;
  });
  std::vector<Answered> revoked;
  for (Afterwards& each : afterwards_) {
    if (!each.answered || now - each.since < options_.answer_within) continue;
    (each.revokes ? revoked : late).push_back(std::exchange(each.answered, {}));
  }
  for (const Answered& answered : late) answered(Error{ErrorCode::unavailable, kNotDurable});
  for (const Answered& answered : revoked) answered(Error{ErrorCode::unavailable, kRevokedForNow});
}

void ClusterHost::change_access(AccessChange change, const Caller& caller, Answered answered) {
  if (closed_) return answered(Error{ErrorCode::unavailable, "the coordinator is ending"});
  const AccessRecord& record = change.record;
  if (change.removed) {
    if (!links_.access->suspend(record.id))
      return answered(Error{ErrorCode::not_found, "it is revoked already"});
    if (links_.on_revoked) links_.on_revoked(record.id);
  } else if (ledger_failing_) {
    return answered(
        Error{ErrorCode::unavailable, "the coordinator's disk is full; try again later"});
  }
  if (!caller.action.empty()) {
    note_change(caller,
                caller.target.empty() ? "token " + std::to_string(record.id) : caller.target);
  }
  // A key that gives way to a newer one of the same worker has no caller, and ends nothing.
  const bool expels = change.removed && record.kind == AccessKind::worker && !caller.action.empty();
  afterwards_.push_back({.answered = std::move(answered),
                         .expels = expels ? record.user : std::string(),
                         .revokes = change.removed,
                         .since = monotonic_now()});
  access_.push_back(std::move(change));
  urgent_ = true;
  flush_soon();
}

void ClusterHost::set_quotas(scheduler::Quotas quotas, const Caller& caller) {
  if (closed_) return;
  note_change(caller, caller.target);
  handle(SetQuotas{{}, std::move(quotas)});
  flush_soon();
}

void ClusterHost::note_denied(Caller caller) {
  if (closed_ || ledger_failing_) return;
  const Instant now = monotonic_now();
  if (now - denied_since_ >= kDeniedWithin) {
    denied_since_ = now;
    denied_ = 0;
    if (denied_unsaid_ != 0) {
      caller.detail += " (and " + std::to_string(std::exchange(denied_unsaid_, 0)) +
                       " more refusals before it were not written down)";
    }
  }
  if (++denied_ > kDeniedMax) {
    ++denied_unsaid_;
    return;
  }
  std::string target = std::exchange(caller.target, {});
  note_change(caller, std::move(target));
  flush_soon();
}

void ClusterHost::apply_access() {
  const std::vector<AccessChange> changes = std::exchange(access_, {});
  for (const AccessChange& change : changes) {
    links_.access->apply(change);
  }
  const bool times = std::any_of(changes.begin(), changes.end(), [](const AccessChange& change) {
    return change.record.expires_unix_ms != 0;
  });
  if (times) expire_tokens();
  for (const Afterwards& each : std::exchange(afterwards_, {})) {
    if (!each.expels.empty()) handle(ExpelWorker{each.expels});
    if (each.answered) each.answered(Done{});
  }
}

// Tokens whose time is over are removed; until then they are refused already. Looked at again when
// the next one is due.
void ClusterHost::expire_tokens() {
  host_.cancel(expiry_);
  expiry_ = 0;
  const std::int64_t now = wall_now().unix_ms;
  std::int64_t next = 0;
  for (const AccessRecord& record : links_.access->list()) {
    if (record.expires_unix_ms == 0) continue;
    if (record.expires_unix_ms <= now) {
      if (!links_.access->suspend(record.id)) continue;  // it is on the way
      if (links_.on_revoked) links_.on_revoked(record.id);
      Caller own;
      own.user = "tutti";
      own.action = "token expire";
      own.detail = "of " + record.user;
      note_change(own, "token " + std::to_string(record.id));
      access_.push_back({record, true});
    } else if (next == 0 || record.expires_unix_ms < next) {
      next = record.expires_unix_ms;
    }
  }
  if (!access_.empty()) flush_soon();
  if (next == 0) return;
  const auto wait = std::chrono::milliseconds(std::min(next - now, kExpiryLookMsMax));
  expiry_ = host_.arm(wait, [this] {
    expiry_ = 0;
    expire_tokens();
  });
}

void ClusterHost::back_up(const std::filesystem::path& file, std::function<void(Result<>)> done) {
  if (backup_)
    return done(Error{ErrorCode::unavailable, "another backup is being made; try again later"});
  Result<std::unique_ptr<LedgerBackup>> begun = ledger_->begin_backup(file);
  if (!begun) return done(begun.error());
  backup_ = *std::move(begun);
  backup_done_ = std::move(done);
  step_backup();
}

void ClusterHost::step_backup() {
  if (!backup_) return;
  const Result<bool> stepped = backup_->step();
  if (stepped && !*stepped) {
    host_.arm(Duration::zero(), [this] { step_backup(); });
    return;
  }
  backup_.reset();
  const auto done = std::exchange(backup_done_, {});
  done(stepped ? Result<>{} : stepped.error());
}

}  // namespace tutti::coordinator
