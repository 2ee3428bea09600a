#include "coordinator/api/bodies/request_body.h"

#include <boost/json/parse.hpp>

#include <utility>

namespace tutti::api {

namespace json = boost::json;

Error wrong(std::string message) { return {ErrorCode::invalid_argument, std::move(message)}; }

Result<json::object> parse_body(const Call& call) {
  if (call.body.empty()) return json::object();
  boost::system::error_code failure;
  json::value value = json::parse(call.body, failure);
  if (failure) return wrong("the body is not JSON: " + failure.message());
  if (!value.is_object()) return wrong("the body is not a JSON object");
  return std::move(value.as_object());
}

Result<std::string> text_of(const json::object& body, std::string_view name,
                            std::size_t bytes_max) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return std::string();
  if (!value->is_string()) return wrong(std::string(name) + " is not a string");
  if (value->as_string().size() > bytes_max) return wrong(std::string(name) + " is too long");
  return std::string(value->as_string());
}

Result<std::uint64_t> number_of(const json::object& body, std::string_view name,
                                std::uint64_t max) {
  const json::value* value = body.if_contains(name);
  boost::system::error_code failure;
  const std::uint64_t number = value == nullptr ? 0 : value->to_number<std::uint64_t>(failure);
  if (value == nullptr || failure || number > max)
    return wrong(std::string(name) + " is not a number in range");
  return number;
}

Result<std::uint64_t> number_or(const json::object& body, std::string_view name,
                                std::uint64_t otherwise, std::uint64_t max) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return otherwise;
  return number_of(body, name, max);
}

Result<bool> flag_of(const json::object& body, std::string_view name) {
  const json::value* value = body.if_contains(name);
  if (value == nullptr || value->is_null()) return false;
  if (!value->is_bool()) return wrong(std::string(name) + " is not true or false");
  return value->as_bool();
}

}  // namespace tutti::api
