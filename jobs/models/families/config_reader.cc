#include "jobs/models/families/config_reader.h"

#include <fmt/core.h>

namespace tutti::models {

namespace json = boost::json;

const json::value* ConfigReader::value(std::string_view key) const {
  const auto* found = object_.if_contains(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

void ConfigReader::fail(ErrorCode code, std::string message) {
  if (result_) result_ = Error{code, std::move(message)};
}

void ConfigReader::wrong_kind(std::string_view key, std::string_view wanted) {
  const auto* found = value(key);
  fail(ErrorCode::invalid_argument,
       found == nullptr ? fmt::format("`{}` is missing", key)
                        : fmt::format("`{}` is {}, not {}", key, json::serialize(*found), wanted));
}

std::uint32_t ConfigReader::count(std::string_view key) {
  const auto* found = value(key);
  if (found != nullptr && found->is_int64()) {
    const std::int64_t number = found->get_int64();
    if (number >= 0 && number <= INT32_MAX) return static_cast<std::uint32_t>(number);
  }
  wrong_kind(key, "a whole number from 0 to 2147483647");
  return 0;
}

std::uint32_t ConfigReader::count_or(std::string_view key, std::uint32_t otherwise) {
  return has(key) ? count(key) : otherwise;
}

double ConfigReader::number(std::string_view key) {
  const auto* found = value(key);
  if (found != nullptr && found->is_number()) return found->to_number<double>();
  wrong_kind(key, "a number");
  return 0;
}

double ConfigReader::number_or(std::string_view key, double otherwise) {
  return has(key) ? number(key) : otherwise;
}

std::string ConfigReader::text_or(std::string_view key, std::string_view otherwise) {
  const auto* found = value(key);
  if (found == nullptr) return std::string(otherwise);
  if (found->is_string()) return std::string(found->get_string());
  wrong_kind(key, "text");
  return {};
}

bool ConfigReader::flag_or(std::string_view key, bool otherwise) {
  const auto* found = value(key);
  if (found == nullptr) return otherwise;
  if (found->is_bool()) return found->get_bool();
  wrong_kind(key, "true or false");
  return false;
}

std::vector<std::int64_t> ConfigReader::tokens(std::string_view key) {
  const auto* found = value(key);
  if (found == nullptr) return {};
  if (found->is_int64()) return {found->get_int64()};
  std::vector<std::int64_t> list;
  if (found->is_array()) {
    for (const auto& token : found->get_array()) {
      if (!token.is_int64()) {
        wrong_kind(key, "a list of token ids");
        return {};
      }
      list.push_back(token.get_int64());
    }
    return list;
  }
  wrong_kind(key, "a token id or a list of them");
  return {};
}

const json::object* ConfigReader::object(std::string_view key) {
  const auto* found = value(key);
  if (found == nullptr) return nullptr;
  if (found->is_object()) return &found->get_object();
  wrong_kind(key, "an object");
  return nullptr;
}

void read_special_tokens(ConfigReader& config, DecoderDescription& description) {
  const auto begin = config.tokens("bos_token_id");
  if (!begin.empty()) description.begin_token = begin.front();
  description.end_tokens = config.tokens("eos_token_id");
}

void write_special_tokens(const DecoderDescription& description, json::object& config) {
  config["bos_token_id"] = nullptr;
  if (description.begin_token >= 0) config["bos_token_id"] = description.begin_token;
  json::value& end = config["eos_token_id"];
  const std::vector<std::int64_t>& tokens = description.end_tokens;
  if (tokens.size() == 1) {
    end = tokens.front();
  } else if (!tokens.empty()) {
    end = json::array(tokens.begin(), tokens.end());
  }
}

}  // namespace tutti::models
