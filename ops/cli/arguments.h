// The arguments of one verb: declared into variables, parsed, and explained.
//
// A verb says what it takes; only arguments.cc knows the library that parses (CLI11, which is slow
// to compile).
//
// Errors: invalid_argument, one line, with the nearest flag where one is near.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/base/result.h"

namespace tutti::cli {

class Arguments {
 public:
  // `verb` as typed, such as "fault kill-rank".
  Arguments(std::string_view verb, std::string_view summary);
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  ~Arguments();

  // Words without a dash, in the order of these calls; required.
  void word(std::string_view name, std::string& into, std::string_view doc);
  void number(std::string_view name, std::uint64_t& into, std::string_view doc);
  // The last word, which may be left out.
  void optional_word(std::string_view name, std::string& into, std::string_view doc);
  void optional_number(std::string_view name, std::optional<std::uint64_t>& into,
                       std::string_view doc);

  // Flags, such as "--key" or "-f,--follow".
  void flag(std::string_view names, bool& into, std::string_view doc);
  void option(std::string_view names, std::string& into, std::string_view doc);
  void option(std::string_view names, std::uint64_t& into, std::string_view doc);
  void option(std::string_view names, std::optional<std::uint64_t>& into, std::string_view doc);
  void option(std::string_view names, double& into, std::string_view doc);
  void repeated(std::string_view names, std::vector<std::string>& into, std::string_view doc);
  // The option given last must be there.
  void required();

  // What follows, for `--help`, behind the options.
  void epilogue(std::string_view text);

  enum class Outcome { parsed, help };
  Result<Outcome> parse(const std::vector<std::string>& words);

  std::string help() const;

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace tutti::cli
