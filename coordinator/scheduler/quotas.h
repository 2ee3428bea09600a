// What each user may have at a time, and its share.
//
// From the coordinator's configuration: `quotas: {default: "slots=64 queued=1000", ada:
// "share=2"}`. What a user's own row does not say, `default` says; what that does not say is not
// limited.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "protocol/base/result.h"

namespace tutti::coordinator::scheduler {

struct Quota {
  std::optional<std::uint32_t> slots;    // held at a time
  std::optional<std::uint32_t> running;  // jobs that hold slots; each task of an array is one
  std::optional<std::uint32_t> queued;   // jobs and tasks that have not started
  std::optional<double> share;           // weight among users; 1

  bool operator==(const Quota&) const = default;
};

struct Quotas {
  Quota by_default;
  std::map<std::string, Quota> users;

  // With the defaults filled in.
  Quota of(const std::string& owner) const;
  std::map<std::string, double> shares() const;
  bool operator==(const Quotas&) const = default;
};

// Errors: invalid_argument, one line that names the user and the word that is wrong.
Result<Quotas> parse_quotas(const std::map<std::string, std::string>& rows);

}  // namespace tutti::coordinator::scheduler
