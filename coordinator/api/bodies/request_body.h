// The JSON body of a request, field by field.
//
// Errors: invalid_argument, one line that names the field.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <string>
#include <string_view>

#include "coordinator/api/route.h"

namespace tutti::api {

inline constexpr std::size_t kReasonBytesMax = 1024;

Error wrong(std::string message);  // invalid_argument

// The body as an object; an empty body is an empty object.
Result<boost::json::object> parse_body(const Call& call);
// Missing or null: empty.
Result<std::string> text_of(const boost::json::object& body, std::string_view name,
                            std::size_t bytes_max);
Result<std::uint64_t> number_of(const boost::json::object& body, std::string_view name,
                                std::uint64_t max);
// Missing: otherwise.
Result<std::uint64_t> number_or(const boost::json::object& body, std::string_view name,
                                std::uint64_t otherwise, std::uint64_t max);
Result<bool> flag_of(const boost::json::object& body, std::string_view name);

}  // namespace tutti::api
