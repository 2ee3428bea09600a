// Which tokens and keys are good now: looked up by every request, changed by durable changes only.
//
// The first admin's token lies in the state folder and is number 0; it is not in the ledger, and
// neither is the folder's own join token (join.json). All others are known by their hash.
//
// Threads: any. Limits: kTokensMax, kWorkerKeysMax. Errors: exhausted, invalid_argument, not_found.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coordinator/access/access_records.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

// Whom a token speaks for.
struct Principal {
  std::uint64_t token = 0;
  std::string user;
  Role role = Role::viewer;

  bool operator==(const Principal&) const = default;
};

// What a new token is to be.
struct TokenWish {
  AccessKind kind = AccessKind::api;
  std::string user = {};
  Role role = Role::viewer;
  std::int64_t expires_unix_ms = 0;
  std::string made_by = {};
};

struct MadeToken {
  std::string token;  // shown once
  AccessChange change;
};

class AccessTable {
 public:
  static constexpr std::size_t kTokensMax = 20'000;
  static constexpr std::size_t kWorkerKeysMax = 20'000;
  static constexpr std::size_t kUserBytesMax = 64;

  AccessTable(std::string_view admin_token, std::string_view join_token);

  // `last_id`: the greatest number that was ever given.
  void restore(std::span<const AccessRecord> records, std::uint64_t last_id);
  void apply(const AccessChange& change);
  // Its removal is on the way: it is good no more, whenever that becomes durable. False: it was
  // not good.
  bool suspend(std::uint64_t id);

  std::optional<Principal> of_token(std::string_view token, std::int64_t now_unix_ms) const;
  bool is_good(std::uint64_t id, std::int64_t now_unix_ms) const;
  // The number of the join token (0: the folder's own), if it lets a worker in.
  std::optional<std::uint64_t> of_join_token(std::string_view token,
                                             std::int64_t now_unix_ms) const;
  // A worker's key that was let in before.
  std::optional<AccessRecord> of_worker_key(std::string_view public_key) const;

  std::size_t worker_keys() const;
  // The key that the worker of this name was let in with.
  std::optional<AccessRecord> of_worker(std::string_view name) const;

  std::vector<AccessRecord> list() const;  // by number
  std::optional<AccessRecord> find(std::uint64_t id) const;
  // Those whose time is over: to be removed.
  std::vector<AccessRecord> expired(std::int64_t now_unix_ms) const;

  // A new record, which is known only once it is applied; `secret` is 48 or more random digits.
  Result<MadeToken> make(const TokenWish& wish, std::string_view secret, std::int64_t now_unix_ms);
  // Errors: exhausted; the worker then needs its join token each time.
  Result<AccessChange> admit(const TokenWish& worker, std::string_view public_key,
                             std::uint64_t admitted_by, std::int64_t now_unix_ms);

 private:
  void insert(const AccessRecord& record);
  const AccessRecord* with_hash(const std::string& hash, AccessKind kind) const;

  const std::string admin_hash_;
  const std::string join_hash_;
  mutable std::mutex guard_;
  std::map<std::uint64_t, AccessRecord> records_;
  std::unordered_map<std::string, std::uint64_t> by_hash_;
  std::map<std::string, std::uint64_t, std::less<>> by_worker_;
  std::set<std::uint64_t> suspended_;
  std::uint64_t last_id_ = 0;
};

}  // namespace tutti::coordinator
