#include "coordinator/access/access_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "protocol/base/secret.h"
#include "protocol/base/sha256.h"

namespace tutti::coordinator {

namespace {

constexpr std::pair<std::string_view, Role> kRoles[] = {
    {"viewer", Role::viewer}, {"user", Role::user}, {"admin", Role::admin}};

bool is_over(const AccessRecord& record, std::int64_t now_unix_ms) {
  return record.expires_unix_ms != 0 && record.expires_unix_ms <= now_unix_ms;
}

bool is_name(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '@';
  };
  return !name.empty() && name.size() <= AccessTable::kUserBytesMax &&
         std::all_of(name.begin(), name.end(), plain);
}

}  // namespace

std::optional<Role> role_named(std::string_view name) {
  for (const auto& [text, role] : kRoles) {
    if (text == name) return role;
  }
  return std::nullopt;
}

std::string_view name_of(Role role) {
  for (const auto& [text, named] : kRoles) {
    if (named == role) return text;
  }
  return "anyone";
}

AccessTable::AccessTable(std::string_view admin_token, std::string_view join_token)
    : admin_hash_(sha256_hex(admin_token)), join_hash_(sha256_hex(join_token)) {}

void AccessTable::restore(std::span<const AccessRecord> records, std::uint64_t last_id) {
  const std::lock_guard lock(guard_);
  last_id_ = std::max(last_id_, last_id);
  for (const AccessRecord& record : records) {
    insert(record);
    last_id_ = std::max(last_id_, record.id);
  }
}

void AccessTable::insert(const AccessRecord& record) {
  records_[record.id] = record;
  by_hash_[record.hash] = record.id;
  if (record.kind == AccessKind::worker) by_worker_[record.user] = record.id;
}

bool AccessTable::suspend(std::uint64_t id) {
  const std::lock_guard lock(guard_);
  return records_.contains(id) && suspended_.insert(id).second;
}

void AccessTable::apply(const AccessChange& change) {
  const std::lock_guard lock(guard_);
  suspended_.erase(change.record.id);
  if (const auto known = records_.find(change.record.id); known != records_.end()) {
    by_hash_.erase(known->second.hash);
    const auto worker = by_worker_.find(known->second.user);
    if (worker != by_worker_.end() && worker->second == change.record.id) by_worker_.erase(worker);
    records_.erase(known);
  }
  if (!change.removed) insert(change.record);
}

const AccessRecord* AccessTable::with_hash(const std::string& hash, AccessKind kind) const {
  const auto found = by_hash_.find(hash);
  if (found == by_hash_.end() || suspended_.contains(found->second)) return nullptr;
  const AccessRecord& record = records_.at(found->second);
  return record.kind == kind ? &record : nullptr;
}

std::optional<Principal> AccessTable::of_token(std::string_view token,
                                               std::int64_t now_unix_ms) const {
  // Looked up by hash: how long it takes says nothing about the token.
  const std::string hash = sha256_hex(token);
  if (equal_secrets(hash, admin_hash_)) return Principal{0, "admin", Role::admin};
  const std::lock_guard lock(guard_);
  const AccessRecord* record = with_hash(hash, AccessKind::api);
  if (record == nullptr || is_over(*record, now_unix_ms)) return std::nullopt;
  return Principal{record->id, record->user, record->role};
}

bool AccessTable::is_good(std::uint64_t id, std::int64_t now_unix_ms) const {
  if (id == 0) return true;
  const std::lock_guard lock(guard_);
  const auto found = records_.find(id);
  return found != records_.end() && !suspended_.contains(id) &&
         !is_over(found->second, now_unix_ms);
}

std::optional<std::uint64_t> AccessTable::of_join_token(std::string_view token,
                                                        std::int64_t now_unix_ms) const {
  const std::string hash = sha256_hex(token);
  if (equal_secrets(hash, join_hash_)) return 0;
  const std::lock_guard lock(guard_);
  const AccessRecord* record = with_hash(hash, AccessKind::join);
  if (record == nullptr || is_over(*record, now_unix_ms)) return std::nullopt;
  return record->id;
}

std::optional<AccessRecord> AccessTable::of_worker_key(std::string_view public_key) const {
  const std::string hash = sha256_hex(public_key);
  const std::lock_guard lock(guard_);
  const AccessRecord* record = with_hash(hash, AccessKind::worker);
  return record == nullptr ? std::nullopt : std::optional(*record);
}

std::optional<AccessRecord> AccessTable::of_worker(std::string_view name) const {
  const std::lock_guard lock(guard_);
  const auto found = by_worker_.find(name);
  return found == by_worker_.end() ? std::nullopt : std::optional(records_.at(found->second));
}

std::size_t AccessTable::worker_keys() const {
  const std::lock_guard lock(guard_);
  return by_worker_.size();
}

std::vector<AccessRecord> AccessTable::list() const {
  const std::lock_guard lock(guard_);
  std::vector<AccessRecord> out;
  for (const auto& [id, record] : records_) out.push_back(record);
  return out;
}

std::optional<AccessRecord> AccessTable::find(std::uint64_t id) const {
  const std::lock_guard lock(guard_);
  const auto found = records_.find(id);
  return found == records_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<AccessRecord> AccessTable::expired(std::int64_t now_unix_ms) const {
  const std::lock_guard lock(guard_);
  std::vector<AccessRecord> out;
  for (const auto& [id, record] : records_) {
    if (is_over(record, now_unix_ms)) out.push_back(record);
  }
  return out;
}

Result<MadeToken> AccessTable::make(const TokenWish& wish, std::string_view secret,
                                    std::int64_t now_unix_ms) {
  if (!is_name(wish.user)) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("a user's name is 1 to {} letters, digits or . _ - @", kUserBytesMax)};
  }
  if (wish.expires_unix_ms != 0 && wish.expires_unix_ms <= now_unix_ms)
    return Error{ErrorCode::invalid_argument, "the token would have expired already"};
  const std::lock_guard lock(guard_);
  if (records_.size() - by_worker_.size() >= kTokensMax) {
    return Error{ErrorCode::exhausted,
                 fmt::format("there are {} tokens; revoke some first", kTokensMax)};
  }
  MadeToken made;
  made.token = (wish.kind == AccessKind::join ? "tutti-join-" : "tutti-") + std::string(secret);
  AccessRecord& record = made.change.record;
  record.id = ++last_id_;
  record.kind = wish.kind;
  record.user = wish.user;
  record.role = wish.role;
  record.hash = sha256_hex(made.token);
  record.made_by = wish.made_by;
  record.made_unix_ms = now_unix_ms;
  record.expires_unix_ms = wish.expires_unix_ms;
  return made;
}

Result<AccessChange> AccessTable::admit(const TokenWish& worker, std::string_view public_key,
                                        std::uint64_t admitted_by, std::int64_t now_unix_ms) {
  const std::lock_guard lock(guard_);
  if (by_worker_.size() >= kWorkerKeysMax)
    return Error{ErrorCode::exhausted, "more workers' keys than can be kept"};
  AccessChange change;
  change.record.id = ++last_id_;
  change.record.kind = AccessKind::worker;
  change.record.user = worker.user;
  change.record.hash = sha256_hex(public_key);
  change.record.made_by = worker.made_by;
  change.record.made_unix_ms = now_unix_ms;
  change.record.admitted_by = admitted_by;
  return change;
}

}  // namespace tutti::coordinator
