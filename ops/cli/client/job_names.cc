#include "ops/cli/client/job_names.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <charconv>
#include <vector>

#include "coordinator/api/http_client.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_list.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

Result<std::uint64_t> find_job(Api& api, const std::string& number_or_name) {
  std::uint64_t id = 0;
  const char* end = number_or_name.data() + number_or_name.size();
  const auto [rest, failed] = std::from_chars(number_or_name.data(), end, id);
  if (failed == std::errc{} && rest == end) return id;
  const Result<boost::json::value> named =
      list_jobs(api, "last=1&name=" + api::encode_query(number_or_name));
  if (!named) return named.error();
  const boost::json::array& newest = list_of(*named, "jobs");
  if (!newest.empty()) return static_cast<std::uint64_t>(whole_of(newest.back(), "id"));
  // Only the name of another one may help now.
  const Result<boost::json::value> all = list_jobs(api);
  if (!all) return all.error();
  std::vector<std::string> names;
  for (const boost::json::value& job : list_of(*all, "jobs")) names.push_back(text_of(job, "name"));
  const std::string_view near =
      spec::nearest_word(number_or_name, std::vector<std::string_view>(names.begin(), names.end()));
  return Error{ErrorCode::not_found,
               fmt::format("there is no job \"{}\"; {}", number_or_name,
                           near.empty() ? "`tutti jobs` lists them"
                                        : fmt::format("did you mean \"{}\"?", near))};
}

}  // namespace tutti::cli
