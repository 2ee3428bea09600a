#include "coordinator/api/event_query.h"

#include <fmt/format.h>

#include <boost/describe/enum_to_string.hpp>
#include <boost/describe/enumerators.hpp>
#include <boost/mp11/algorithm.hpp>

#include <charconv>

#include "protocol/spec/parse.h"

namespace tutti::api {

using coordinator::EventKind;

namespace {

std::vector<std::string_view> kind_names() {
  std::vector<std::string_view> names;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<EventKind>>(
      [&](auto each) { names.emplace_back(each.name); });
  return names;
}

Result<EventKind> kind_named(std::string_view name) {
  std::optional<EventKind> found;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<EventKind>>([&](auto each) {
    if (name == each.name) found = each.value;
  });
  if (found) return *found;
  const std::string_view near = spec::nearest_word(name, kind_names());
  return Error{ErrorCode::invalid_argument,
               "there are no events of kind \"" + std::string(name) + '"' +
                   (near.empty() ? fmt::format("; there are {}", fmt::join(kind_names(), ", "))
                                 : "; did you mean \"" + std::string(near) + "\"?")};
}

}  // namespace

Result<std::uint64_t> cursor_of(const Call& call) {
  if (call.last_event.empty()) return call.number("after", 0);
  std::uint64_t value = 0;
  const char* end = call.last_event.data() + call.last_event.size();
  const auto parsed = std::from_chars(call.last_event.data(), end, value);
  if (parsed.ec == std::errc() && parsed.ptr == end) return value;
  return Error{ErrorCode::invalid_argument, "Last-Event-ID is no cursor of this stream"};
}

Result<coordinator::Ledger::EventQuery> parse_event_query(const Call& call) {
  coordinator::Ledger::EventQuery query;
  query.job = call.job;
  const Result<std::uint64_t> after = cursor_of(call);
  if (!after) return after.error();
  query.after = *after;
  const Result<std::uint64_t> since = call.number("since_unix_ms", 0);
  if (!since) return since.error();
  query.since_unix_ms = static_cast<std::int64_t>(*since);
  if (const auto node = call.query.find("node"); node != call.query.end())
    query.worker = node->second;
  const auto kinds = call.query.find("kind");
  if (kinds == call.query.end()) return query;
  std::string_view rest = kinds->second;
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find(','));
    const Result<EventKind> kind = kind_named(name);
    if (!kind) return kind.error();
    query.kinds.push_back(*kind);
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
  }
  return query;
}

}  // namespace tutti::api
