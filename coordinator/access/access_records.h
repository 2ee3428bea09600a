// Who may do what, and who did what: the records of access as the ledger keeps them.
//
// A token is kept as its hash only; it is shown once, to whom it is made for. Fields may be added
// (with a default), never renamed.
//
// Units: times of day in UTC milliseconds.
#pragma once

#include <boost/describe/class.hpp>
#include <boost/describe/enum.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tutti::coordinator {

// Each may do what those before it may.
BOOST_DEFINE_ENUM_CLASS(Role, anyone, viewer, user, admin)

// Of whom a role may be given: viewer | user | admin.
std::optional<Role> role_named(std::string_view name);
std::string_view name_of(Role role);

// api: a bearer token of the HTTP API. join: lets workers in. worker: a key that was let in, which
// needs no join token any more.
BOOST_DEFINE_ENUM_CLASS(AccessKind, api, join, worker)

struct AccessRecord {
  std::uint64_t id = 0;
  AccessKind kind = AccessKind::api;
  std::string user;          // api: whose; join: what for; worker: the worker's name
  Role role = Role::viewer;  // api
  std::string hash;          // SHA-256 of the token, or of the worker's public key
  std::string made_by;       // user
  std::int64_t made_unix_ms = 0;
  std::int64_t expires_unix_ms = 0;  // 0: never
  std::uint64_t admitted_by = 0;     // worker: the join token that let it in; 0: the folder's own

  bool operator==(const AccessRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(AccessRecord, (),
                      (id, kind, user, role, hash, made_by, made_unix_ms, expires_unix_ms,
                       admitted_by))

// Takes effect once it is durable.
struct AccessChange {
  AccessRecord record;
  bool removed = false;

  bool operator==(const AccessChange&) const = default;
};

// Who asks for a change, and from where.
struct Caller {
  std::string user;
  std::uint64_t token = 0;
  std::string from;    // address of the client
  std::string action;  // "cancel": what is asked for; empty: not a change
  std::string target;  // "job 7", "node a"; of a submit its job is filled in
  std::string detail;  // a reason, a role
};

// One change that somebody made.
struct AuditRecord {
  std::uint64_t seq = 0;  // from 1, without gaps
  std::int64_t unix_ms = 0;
  std::string user;
  std::uint64_t token = 0;  // 0: the one in the state folder
  std::string from;
  std::string action;
  std::string target;
  std::string detail;

  bool operator==(const AuditRecord&) const = default;
};
BOOST_DESCRIBE_STRUCT(AuditRecord, (), (seq, unix_ms, user, token, from, action, target, detail))

}  // namespace tutti::coordinator
