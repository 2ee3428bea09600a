#include "ops/cli/client/job_list.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <cstdint>
#include <iterator>
#include <utility>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace {

// Far beyond what a coordinator remembers.
constexpr int kPagesMax = 10'000;

}  // namespace

Result<boost::json::value> list_jobs(Api& api, const std::string& query) {
  boost::json::array jobs;
  std::int64_t after = 0;
  const bool one_page = query.starts_with("last=") || query.find("&last=") != std::string::npos;
  for (int page = 0; page < kPagesMax; ++page) {
    std::string target = "/api/v1/jobs";
    if (after != 0) target += fmt::format("?after={}", after);
    if (!query.empty()) target += (after != 0 ? "&" : "?") + query;
    const Result<boost::json::value> answer = api.get(std::move(target));
    if (!answer) return answer.error();
    const boost::json::array& more = list_of(*answer, "jobs");
    jobs.insert(jobs.end(), more.begin(), more.end());
    // A coordinator that knows no pages says neither where to go on nor that this is the end.
    const std::int64_t next = whole_of(*answer, "next");
    if (one_page || !has(*answer, "end") || flag_of(*answer, "end") || next <= after) break;
    after = next;
  }
  return boost::json::value{{"jobs", std::move(jobs)}};
}

}  // namespace tutti::cli
