#include "ops/cli/client/job_names.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <charconv>
#include <vector>

#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_list.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

Result<std::uint64_t> find_job(Api& api, const std::string& number_or_name) {
  std::uint64_t id = 0;
  const char* end = number_or_name.data() + number_or_name.size();
  const auto [rest, failed] = std::from_chars(number_or_name.data(), end, id);
  if (failed == std::errc{} && rest == end) return id;
  const Result<boost::json::value> answer = list_jobs(api);
  if (!answer) return answer.error();
  std::vector<std::string> names;
  for (const boost::json::value& job : list_of(*answer, "jobs")) {
    names.push_back(text_of(job, "name"));
    if (names.back() == number_or_name)
      id = std::max(id, static_cast<std::uint64_t>(whole_of(job, "id")));
  }
  if (id > 0) return id;
  const std::string_view near =
      spec::nearest_word(number_or_name, std::vector<std::string_view>(names.begin(), names.end()));
  return Error{ErrorCode::not_found,
               fmt::format("there is no job \"{}\"; {}", number_or_name,
                           near.empty() ? "`tutti jobs` lists them"
                                        : fmt::format("did you mean \"{}\"?", near))};
}

}  // namespace tutti::cli
