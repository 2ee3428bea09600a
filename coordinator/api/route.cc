#include "coordinator/api/route.h"

#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include <charconv>

namespace tutti::api {

Result<std::uint64_t> Call::number(const std::string& key, std::uint64_t otherwise) const {
  const auto found = query.find(key);
  if (found == query.end()) return otherwise;
  std::uint64_t value = 0;
  const char* end = found->second.data() + found->second.size();
  const auto parsed = std::from_chars(found->second.data(), end, value);
  if (found->second.empty() || parsed.ec != std::errc() || parsed.ptr != end) {
    return Error{ErrorCode::invalid_argument, "the query's " + key + " is not a number"};
  }
  return value;
}

coordinator::Caller Call::caller(std::string action, std::string target, std::string detail) const {
  return {user, token, from, std::move(action), std::move(target), std::move(detail)};
}

Answer json_answer(std::string body) {
  Answer answer;
  answer.body = std::move(body);
  return answer;
}

unsigned status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return 400;
    case ErrorCode::permission_denied: return 403;
    case ErrorCode::not_found: return 404;
    case ErrorCode::already_exists: return 409;
    case ErrorCode::unsupported: return 400;
    case ErrorCode::exhausted:
    case ErrorCode::unavailable:
    case ErrorCode::aborted: return 503;
    case ErrorCode::deadline_exceeded: return 504;
    case ErrorCode::stale:
    case ErrorCode::corrupt:
    case ErrorCode::internal: return 500;
  }
  return 500;
}

Answer error_answer(const Error& error) {
  Answer answer;
  answer.status = status_of(error.code);
  answer.error = error.message;
  answer.body = boost::json::serialize(
      boost::json::value{{"error", {{"code", to_string(error.code)}, {"message", error.message}}}});
  return answer;
}

}  // namespace tutti::api
