// The bodies of requests that change something -> what the cluster is asked for.
//
// Pure, and apart from the routes, so that tests/fuzz can give them any bytes. Whose request it is
// and what its path names is the call's; a body cannot say otherwise.
//
// Errors: invalid_argument, one line that names the field; of a submit also those of its spec.
#pragma once

#include <cstdint>

#include "coordinator/access/access_table.h"
#include "coordinator/api/route.h"
#include "coordinator/cluster/cluster_messages.h"
#include "protocol/base/result.h"

namespace tutti::api {

inline constexpr std::size_t kKeyBytesMax = 256;
// Each is looked for among the keys so far.
inline constexpr std::size_t kOverridesMax = 1'000;
inline constexpr std::uint64_t kFaultMsMax = 3'600'000;
inline constexpr std::uint64_t kDrainMsMax = 30ULL * 24 * 3600 * 1000;
inline constexpr std::uint64_t kExpirySecondsMax = 10ULL * 366 * 24 * 3600;
// Every worker hears of new keys with its next heartbeat; those that are away for less find them.
inline constexpr std::uint64_t kOverlapSeconds = 600;
inline constexpr std::uint64_t kOverlapSecondsMax = 30 * 24 * 3600;

Result<coordinator::SubmitJob> parse_submit(const Call& call);
Result<coordinator::CancelJob> parse_cancel(const Call& call);
Result<coordinator::InjectFault> parse_fault(const Call& call);
Result<coordinator::DrainNode> parse_drain(const Call& call);
// `now_unix_ms`: from when on the token's time counts.
Result<coordinator::TokenWish> parse_token(const Call& call, std::int64_t now_unix_ms);
// Seconds that the old keys are good for.
Result<std::uint64_t> parse_rotation(const Call& call);

}  // namespace tutti::api
