#include "coordinator/api/job_query.h"

#include <fmt/format.h>

#include <boost/describe/enumerators.hpp>
#include <boost/mp11/algorithm.hpp>

#include <algorithm>

#include "protocol/spec/parse.h"

namespace tutti::api {

using coordinator::JobState;

namespace {

constexpr std::string_view kUnfinished = "unfinished";

// Those of that name: a state's own, or all in which a job has not ended.
Result<> add_states(std::string_view name, std::vector<JobState>& out) {
  std::vector<std::string_view> names = {kUnfinished};
  const std::size_t before = out.size();
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<JobState>>([&](auto each) {
    names.emplace_back(each.name);
    const bool open = name == kUnfinished && !coordinator::is_terminal(each.value);
    if (open || name == each.name) out.push_back(each.value);
  });
  if (out.size() != before) return {};
  const std::string_view near = spec::nearest_word(name, names);
  return Error{ErrorCode::invalid_argument,
               fmt::format("no job is in a state \"{}\"", name) +
                   (near.empty() ? fmt::format("; there are {}", fmt::join(names, ", "))
                                 : fmt::format("; did you mean \"{}\"?", near))};
}

}  // namespace

Result<coordinator::JobFilter> parse_job_query(const Call& call) {
  coordinator::JobFilter filter;
  const Result<std::uint64_t> after = call.number("after", 0);
  if (!after) return after.error();
  filter.after = JobId{*after};
  filter.newest = call.query.contains("last");
  if (filter.newest && call.query.contains("limit")) {
    return Error{ErrorCode::invalid_argument, "last and limit exclude each other"};
  }
  const Result<std::uint64_t> limit = call.number(filter.newest ? "last" : "limit", kJobsPerPage);
  if (!limit) return limit.error();
  if (*limit == 0) return Error{ErrorCode::invalid_argument, "a page has at least one job"};
  filter.limit = std::min(*limit, kJobsPerPage);
  const auto text = [&](const char* key) {
    const auto at = call.query.find(key);
    return at == call.query.end() ? std::string() : at->second;
  };
  filter.owner = text("owner");
  filter.name = text("name");
  const std::string states = text("state");
  std::string_view rest = states;
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find(','));
    if (const Result<> added = add_states(name, filter.states); !added) return added.error();
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
  }
  return filter;
}

}  // namespace tutti::api
