// Reads the API's JSON tolerantly: a field that is not there, or of another type, is its default,
// so that a client goes on with a coordinator of another version.
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace tutti::cli {

std::string text_of(const boost::json::value& object, std::string_view key);
std::int64_t whole_of(const boost::json::value& object, std::string_view key,
                      std::int64_t missing = 0);
double number_of(const boost::json::value& object, std::string_view key, double missing = 0);
bool flag_of(const boost::json::value& object, std::string_view key);
bool has(const boost::json::value& object, std::string_view key);  // and is not null
const boost::json::array& list_of(const boost::json::value& object, std::string_view key);
const boost::json::value& member_of(const boost::json::value& object, std::string_view key);

// Whether a job has ended.
bool is_terminal(const boost::json::value& job);

// One line with a line break, as scripts read it.
std::string json_line(const boost::json::value& value);

}  // namespace tutti::cli
