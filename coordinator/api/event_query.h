// Which events a reader asks for, out of a request's query: kind, node, since.
#pragma once

#include "coordinator/api/route.h"
#include "coordinator/ledger/ledger.h"
#include "protocol/base/result.h"

namespace tutti::api {

// Last-Event-ID or after, kind=a,b, node=NAME, since_unix_ms=N. Errors: invalid_argument, with
// the nearest kind.
Result<coordinator::Ledger::EventQuery> parse_event_query(const Call& call);

// A number where the reader goes on: Last-Event-ID, or else `after`. A browser that connects again
// asks for the same `after` as at first, and says by the header how far it has come.
Result<std::uint64_t> cursor_of(const Call& call);

}  // namespace tutti::api
