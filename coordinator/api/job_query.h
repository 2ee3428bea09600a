// Which jobs a reader asks for, out of a request's query.
#pragma once

#include "coordinator/api/route.h"
#include "coordinator/cluster/cluster_views.h"
#include "protocol/base/result.h"

namespace tutti::api {

// after=ID, limit=N (at most kJobsPerPage), last=N (the newest N instead), state=a,b (or
// unfinished), owner=USER, name=NAME. Errors: invalid_argument, with the nearest state.
inline constexpr std::uint64_t kJobsPerPage = 1'000;
Result<coordinator::JobFilter> parse_job_query(const Call& call);

}  // namespace tutti::api
