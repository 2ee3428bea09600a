// Who may connect: workers' keys and join tokens, and the coordinator's own keys made anew.
#include <algorithm>
#include <utility>

#include "coordinator/cluster_host.h"
#include "protocol/base/clock.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

// A port that was given up is free again soon after.
constexpr Duration kPortRetry = std::chrono::milliseconds(200);
constexpr int kPortTries = 50;
constexpr Duration kAnnounceRetry = std::chrono::seconds(5);

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

Result<std::unique_ptr<transport::ServerEndpoint>> ClusterHost::open_server(
    PortChoice choice, const transport::KeyPair& keys) {
  return open_port(choice, [&](std::uint16_t port) {
    transport::ServerOptions with;
    with.address = address_on(port);
    with.keys = keys;
    return transport::open_server(host_, with,
                                  {.on_frame = [this](const std::string& peer, std::string frame) {
                                    on_frame(peer, frame);
                                  }});
  });
}

Result<> ClusterHost::listen_for_workers() {
  const bool resumes = resume_overlap();
  PortChoice control = options_.control;
  if (!resumes) {
    auto server = open_server(control, options_.keys);
    if (!server) return server.error();
    server_ = *std::move(server);
    control_address_ = server_->address();
    return {};
  }
  // As before the restart: the old keys where they were, the new ones beside them.
  if (control.wanted == options_.replaced->control_port) control.wanted = 0;
  const auto added = open_port(control, [&](std::uint16_t port) {
    return server_->add_address(address_on(port), options_.keys);
  });
  if (!added) return added.error();
  control_address_ = server_->address();
  move_to(*added);
  return {};
}

// Whether the old keys are good again, where they were until the restart.
bool ClusterHost::resume_overlap() {
  if (!options_.replaced || !links_.forget_replaced_keys) return false;
  const ReplacedKeys& replaced = *options_.replaced;
  // A clock that was set back gives no more than was asked for.
  const Duration left = std::min<Duration>(
      std::chrono::milliseconds(replaced.until.unix_ms - wall_now().unix_ms), replaced.overlap);
  // Of the same keys: the rotation was not made any more.
  if (left <= Duration::zero() || replaced.keys == options_.keys) {
    links_.forget_replaced_keys();
    return false;
  }
  auto server = open_server({.wanted = replaced.control_port}, replaced.keys);
  if (!server) {
    TUTTI_LOG_WARNING("coordinator", "the old keys are good no more: {}", server.error().message);
    return false;
  }
  server_ = *std::move(server);
  rotating_ = true;
  host_.arm(left, [this, overlap = replaced.overlap] { end_overlap(overlap); });
  TUTTI_LOG_INFO("coordinator", "the old keys, at {}, are good for {} s more", server_->address(),
                 to_ms(left) / 1000);
  return true;
}

void ClusterHost::move_to(const std::string& address) {
  old_address_ = std::exchange(control_address_, address);
  next_connection_.control_port = port_of(address);
  next_connection_.server_key = options_.keys.public_key;
}

// The keys are kept, so there is no way back; a full disk's join.json waits.
void ClusterHost::announce() {
  host_.cancel(std::exchange(announce_, 0));
  const Result<> said = links_.announce_keys(options_.keys, port_of(control_address_));
  if (said) return;
  TUTTI_LOG_WARNING("coordinator", "join.json does not say the new keys yet: {}",
                    said.error().message);
  announce_ = host_.arm(kAnnounceRetry, [this] {
    announce_ = 0;
    announce();
  });
}

void ClusterHost::rotate_keys(Duration overlap, const Caller& caller, Answered answered) {
  if (closed_ || !links_.replace_keys)
    return answered(Error{ErrorCode::unavailable, "the coordinator is ending"});
  if (rotating_) {
    return answered(Error{ErrorCode::already_exists,
                          old_address_.empty()
                              ? "the last rotation's keys are being taken to port " +
                                    std::to_string(options_.control.wanted) + "; wait some seconds"
                              : "keys are being rotated already; wait for its end"});
  }
  const transport::KeyPair keys = transport::make_keys();
  const Result<std::string> added = server_->add_address(address_on(0), keys);
  if (!added) return answered(added.error());
  const WallTime until{wall_now().unix_ms + to_ms(overlap)};
  const Result<> kept =
      links_.replace_keys(keys, {options_.keys, port_of(control_address_), until, overlap});
  if (!kept) {
    server_->remove_address(*added);
    return answered(kept.error());
  }
  rotating_ = true;
  options_.keys = keys;
  move_to(*added);
  announce();
  TUTTI_LOG_INFO("coordinator", "new keys, at {}; the old ones are good for {} s more",
                 control_address_, to_ms(overlap) / 1000);
  host_.arm(overlap, [this, overlap] { end_overlap(overlap); });
  note_change(caller, caller.target);
  urgent_ = true;
  afterwards_.push_back({.answered = std::move(answered), .since = monotonic_now()});
  flush_soon();
}

void ClusterHost::end_overlap(Duration overlap) {
  if (closed_) return;
  server_->remove_address(std::exchange(old_address_, {}));
  links_.forget_replaced_keys();
  TUTTI_LOG_INFO("coordinator", "the old keys are good no more");
  const std::uint16_t wanted = options_.control.wanted;
  rotating_ = wanted != 0 && port_of(control_address_) != wanted;
  if (rotating_) return_to_port(overlap, 0);
}

// The port that the configuration names is where the next workers look. Who knows the keys where
// they are now is told by his heartbeats, for another overlap.
void ClusterHost::return_to_port(Duration overlap, int tries) {
  if (closed_) return;
  const auto added = server_->add_address(address_on(options_.control.wanted), options_.keys);
  if (added) {
    move_to(*added);
    announce();
    host_.arm(overlap, [this, overlap] { end_overlap(overlap); });
    return;
  }
  if (tries < kPortTries) {
    host_.arm(kPortRetry, [this, overlap, tries] { return_to_port(overlap, tries + 1); });
    return;
  }
  rotating_ = false;
  TUTTI_LOG_ERROR("coordinator", "cannot listen on port {} again: {}", options_.control.wanted,
                  added.error().message);
}

}  // namespace tutti::coordinator
