// Reads typed values from a model's config.json and keeps the first thing that was wrong with it.
//
//   ConfigReader config(object);
//   description.width = config.count("hidden_size");
//   if (!config.result()) return config.result().error();
//
// A key that is missing or null counts as absent. After an error the values returned are zero.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/models/description.h"
#include "protocol/base/result.h"

namespace tutti::models {

class ConfigReader {
 public:
  explicit ConfigReader(const boost::json::object& object) : object_(object) {}

  bool has(std::string_view key) const { return value(key) != nullptr; }
  // A whole number in [0, 2^31).
  std::uint32_t count(std::string_view key);
  std::uint32_t count_or(std::string_view key, std::uint32_t otherwise);
  double number(std::string_view key);
  double number_or(std::string_view key, double otherwise);
  std::string text_or(std::string_view key, std::string_view otherwise);
  bool flag_or(std::string_view key, bool otherwise);
  // One token id or a list of them; empty where absent.
  std::vector<std::int64_t> tokens(std::string_view key);
  // Null where absent.
  const boost::json::object* object(std::string_view key);

  void fail(ErrorCode code, std::string message);
  const Result<>& result() const { return result_; }

 private:
  const boost::json::value* value(std::string_view key) const;
  void wrong_kind(std::string_view key, std::string_view wanted);

  const boost::json::object& object_;
  Result<> result_;
};

// The tokens that begin and end a text, under the keys that all families have.
void read_special_tokens(ConfigReader& config, DecoderDescription& description);
void write_special_tokens(const DecoderDescription& description, boost::json::object& config);

}  // namespace tutti::models
