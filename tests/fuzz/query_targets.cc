// Queries of the HTTP API, as `name=value` parted by `&`.
#include "coordinator/api/event_query.h"
#include "coordinator/api/job_query.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

api::Call call_of(std::string_view bytes) {
  api::Call out;
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, bytes.find('&'));
    const std::string name(part.substr(0, part.find('=')));
    const std::string value(part.size() > name.size() ? part.substr(name.size() + 1) : "");
    if (name == "Last-Event-ID") {
      out.last_event = value;
    } else {
      out.query[name] = value;
    }
    bytes.remove_prefix(std::min(bytes.size(), part.size() + 1));
  }
  return out;
}

bool refused(const Error& error) {
  require(error.code == ErrorCode::invalid_argument, "a query is refused as something else");
  require(!error.message.empty(), "a refusal without a message");
  return false;
}

}  // namespace

bool take_job_query(std::string_view bytes) {
  const auto filter = api::parse_job_query(call_of(bytes));
  if (!filter) return refused(filter.error());
  require(filter->limit > 0 && filter->limit <= api::kJobsPerPage, "a page without a bound");
  return true;
}

bool take_event_query(std::string_view bytes) {
  const auto query = api::parse_event_query(call_of(bytes));
  if (!query) return refused(query.error());
  require(query->limit > 0 && query->limit <= coordinator::kEventsPerReadMax,
          "a read without a bound");
  return true;
}

std::vector<std::string> job_query_seeds() {
  return {"after=3&limit=20&state=queued,running&owner=ann&name=x", "last=5&state=unfinished",
          "state=runing"};
}

std::vector<std::string> event_query_seeds() {
  return {"after=7&kind=submitted,finished&node=node-1&since_unix_ms=5", "Last-Event-ID=12",
          "kind=submited"};
}

}  // namespace tutti::fuzz
