#include "ops/cli/client/fields.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace tutti::cli {

namespace json = boost::json;

const json::value& member_of(const json::value& object, std::string_view key) {
  static const json::value kNull;
  if (const json::object* members = object.if_object()) {
    if (const json::value* found = members->if_contains(key)) return *found;
  }
  return kNull;
}

std::string text_of(const json::value& object, std::string_view key) {
  const json::string* text = member_of(object, key).if_string();
  return text == nullptr ? std::string() : std::string(text->data(), text->size());
}

std::int64_t whole_of(const json::value& object, std::string_view key, std::int64_t missing) {
  const json::value& value = member_of(object, key);
  if (!value.is_number()) return missing;
  boost::system::error_code failed;
  const std::int64_t whole = value.to_number<std::int64_t>(failed);
  return failed ? missing : whole;
}

double number_of(const json::value& object, std::string_view key, double missing) {
  const json::value& value = member_of(object, key);
  return value.is_number() ? value.to_number<double>() : missing;
}

bool flag_of(const json::value& object, std::string_view key) {
  const bool* flag = member_of(object, key).if_bool();
  return flag != nullptr && *flag;
}

bool has(const json::value& object, std::string_view key) {
  return !member_of(object, key).is_null();
}

const json::array& list_of(const json::value& object, std::string_view key) {
  static const json::array kEmpty;
  const json::array* list = member_of(object, key).if_array();
  return list == nullptr ? kEmpty : *list;
}

bool is_terminal(const json::value& job) {
  const std::string state = text_of(job, "state");
  return state == "done" || state == "failed" || state == "cancelled";
}

std::string json_line(const json::value& value) { return json::serialize(value) + '\n'; }

}  // namespace tutti::cli
