// Who may connect: workers' keys and join tokens, and the coordinator's own keys made anew.
#include <utility>

#include "coordinator/cluster_host.h"
#include "protocol/base/clock.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

// A port that was given up is free again soon after.
constexpr Duration kPortRetry = std::chrono::milliseconds(200);
constexpr int kPortTries = 50;

std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
}

}  // namespace

std::string ClusterHost::address_on(std::uint16_t port) const {
  const bool is_v6 = options_.host.find(':') != std::string::npos;
  return "tcp://" + (is_v6 ? "[" + options_.host + "]" : options_.host) + ":" +
         std::to_string(port);
}

// The state machine knows one join token. Whoever shows a good one, or a key that was let in by one
// before, shows that; so a worker stays a member when the token that let it in has expired.
void ClusterHost::admit(wire::Hello& hello) {
  AccessTable& access = *links_.access;
  const std::int64_t now = wall_now().unix_ms;
  const std::string& key = server_->sender_key();
  const auto token = access.of_join_token(hello.join_token, now);
  const auto known = key.empty() ? std::nullopt : access.of_worker_key(key);
  const bool is_own_key = known && known->user == hello.worker;
  hello.join_token = token || is_own_key ? join_token_ : "";
  if (!token || is_own_key || key.empty() || hello.worker.empty() || ledger_failing_) return;
  // One key a name, the newest that was let in; one name a key.
  const auto before = access.of_worker(hello.worker);
  for (const auto& old : {before, known}) {
    if (old) change_access({*old, true}, {}, [](const AnswerBody&) {});
  }
  TokenWish wish;
  wish.user = hello.worker;
  const Result<AccessChange> admitted = access.admit(wish, key, *token, now);
  if (!admitted) return;
  change_access(*admitted,
                {.user = hello.worker,
                 .token = *token,
                 .from = hello.host,
                 .action = "worker admit",
                 .target = "node " + hello.worker,
                 .detail = before ? "a new key, in the place of its old one" : "its first key"},
                [](const AnswerBody&) {});
  drop_forgotten_key();
}

// The oldest, where there are too many: names of workers that come and go would fill the table.
void ClusterHost::drop_forgotten_key() {
  const AccessTable& access = *links_.access;
  if (access.worker_keys() <= state_->worker_count() + options_.forgotten_keys_max) return;
  for (const AccessRecord& record : access.list()) {
    if (record.kind != AccessKind::worker || state_->knows_worker(record.user)) continue;
    Caller own;
    own.user = "tutti";
    own.action = "worker forget";
    own.detail = "its key, of those of forgotten workers the oldest";
    note_change(own, "node " + record.user);
    return change_access({record, true}, {}, [](const AnswerBody&) {});
  }
}

Result<> ClusterHost::listen_with(const transport::KeyPair& keys, std::uint16_t port) {
  const Result<std::string> added = server_->add_address(address_on(port), keys);
  if (!added) return added.error();
  const Result<> kept = links_.keep_keys(keys, port_of(*added));
  if (!kept) {
    server_->remove_address(*added);
    return kept;
  }
  old_address_ = std::exchange(control_address_, *added);
  next_connection_.control_port = port_of(*added);
  next_connection_.server_key = keys.public_key;
  return {};
}

void ClusterHost::rotate_keys(Duration overlap, const Caller& caller, Answered answered) {
  if (closed_ || !links_.keep_keys)
    return answered(Error{ErrorCode::unavailable, "the coordinator is ending"});
  if (!old_address_.empty()) {
    return answered(
        Error{ErrorCode::already_exists, "keys are being rotated already; wait for its end"});
  }
  const transport::KeyPair keys = transport::make_keys();
  if (const Result<> listening = listen_with(keys, 0); !listening)
    return answered(listening.error());
  TUTTI_LOG_INFO("coordinator", "new keys, at {}; the old ones are good for {} s more",
                 control_address_, to_ms(overlap) / 1000);
  host_.arm(overlap, [this, keys, overlap] { end_overlap(keys, overlap); });
  note_change(caller, caller.target);
  urgent_ = true;
  afterwards_.push_back({.answered = std::move(answered), .since = monotonic_now()});
  flush_soon();
}

void ClusterHost::end_overlap(const transport::KeyPair& keys, Duration overlap) {
  if (closed_) return;
  server_->remove_address(std::exchange(old_address_, {}));
  TUTTI_LOG_INFO("coordinator", "the old keys are good no more");
  const std::uint16_t wanted = options_.control.wanted;
  if (wanted != 0 && port_of(control_address_) != wanted) return_to_port(keys, overlap, 0);
}

// The port that the configuration names is where the next workers look.
void ClusterHost::return_to_port(const transport::KeyPair& keys, Duration overlap, int tries) {
  if (closed_) return;
  const Result<> listening = listen_with(keys, options_.control.wanted);
  if (listening) {
    host_.arm(overlap, [this, keys, overlap] { end_overlap(keys, overlap); });
    return;
  }
  if (tries < kPortTries) {
    host_.arm(kPortRetry,
              [this, keys, overlap, tries] { return_to_port(keys, overlap, tries + 1); });
    return;
  }
  TUTTI_LOG_ERROR("coordinator", "cannot listen on port {} again: {}", options_.control.wanted,
                  listening.error().message);
}

}  // namespace tutti::coordinator
