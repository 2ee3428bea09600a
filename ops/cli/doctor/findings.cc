#include "ops/cli/doctor/findings.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <algorithm>

namespace tutti::cli {

namespace {

constexpr std::string_view kWords[] = {"good", "note", "problem"};

std::string_view word_of(Verdict verdict) { return kWords[static_cast<std::size_t>(verdict)]; }

std::string painted(Verdict verdict, Paint paint) {
  const std::string word = fmt::format("{:<7}", word_of(verdict));
  if (paint == Paint::plain) return word;
  constexpr std::string_view kEscapes[] = {"\x1b[32m", "\x1b[33m", "\x1b[31m"};
  return fmt::format("{}{}\x1b[0m", kEscapes[static_cast<std::size_t>(verdict)], word);
}

}  // namespace

bool any_problem(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& each) { return each.verdict == Verdict::problem; });
}

std::string findings_page(const std::vector<Finding>& findings, Paint paint) {
  std::size_t width = 0;
  for (const Finding& each : findings) width = std::max(width, width_of(each.subject));
  std::string page;
  for (const Finding& each : findings) {
    page += fmt::format("{}  {}{}  {}\n", painted(each.verdict, paint), each.subject,
                        std::string(width - width_of(each.subject), ' '), each.found);
    if (!each.advice.empty())
      page += fmt::format("{}-> {}\n", std::string(width + 11, ' '), each.advice);
  }
  const auto problems = std::count_if(findings.begin(), findings.end(), [](const Finding& each) {
    return each.verdict == Verdict::problem;
  });
  return page + (problems == 0 ? "no problems\n"
                               : fmt::format("{} problem{}\n", problems, problems == 1 ? "" : "s"));
}

boost::json::value findings_json(const std::vector<Finding>& findings) {
  boost::json::array out;
  for (const Finding& each : findings) {
    out.push_back(boost::json::object{{"verdict", word_of(each.verdict)},
                                      {"subject", each.subject},
                                      {"found", each.found},
                                      {"advice", each.advice}});
  }
  return boost::json::object{{"findings", std::move(out)}, {"problems", any_problem(findings)}};
}

}  // namespace tutti::cli
