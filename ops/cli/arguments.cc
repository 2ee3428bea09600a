#include "ops/cli/arguments.h"

#include <CLI/CLI.hpp>

#include <algorithm>

#include "protocol/spec/parse.h"

namespace tutti::cli {

struct Arguments::Parser {
  CLI::App app;
  CLI::Option* last = nullptr;
  std::vector<std::string> flags;  // "--follow", for suggestions
};

Arguments::Arguments(std::string_view verb, std::string_view summary)
    : parser_(std::make_unique<Parser>()) {
  parser_->app.description(std::string(summary));
  parser_->app.name("tutti " + std::string(verb));
  parser_->app.get_formatter()->column_width(34);
  parser_->app.get_formatter()->label("REQUIRED", "");
  parser_->flags.push_back("--help");
}

Arguments::~Arguments() = default;

namespace {

template <class Value>
CLI::Option* add(CLI::App& app, std::string_view names, Value& into, std::string_view doc) {
  CLI::Option* option = app.add_option(std::string(names), into, std::string(doc));
  return option;
}

// CLI11 takes -1 for the largest number there is.
std::string check_whole(const std::string& text) {
  const bool whole = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  return whole ? "" : "must be a whole number, not \"" + text + '"';
}

}  // namespace

void Arguments::word(std::string_view name, std::string& into, std::string_view doc) {
  parser_->last = add(parser_->app, name, into, doc)->required()->type_name("");
}

void Arguments::number(std::string_view name, std::uint64_t& into, std::string_view doc) {
  parser_->last = add(parser_->app, name, into, doc)->required()->type_name("")->check(check_whole);
}

void Arguments::optional_word(std::string_view name, std::string& into, std::string_view doc) {
  parser_->last = add(parser_->app, name, into, doc)->type_name("");
}

void Arguments::optional_number(std::string_view name, std::optional<std::uint64_t>& into,
                                std::string_view doc) {
  parser_->last = add(parser_->app, name, into, doc)->type_name("")->check(check_whole);
}

namespace {

void note_flags(std::vector<std::string>& flags, std::string_view names) {
  const std::size_t dashes = names.find("--");
  if (dashes != std::string_view::npos) flags.emplace_back(names.substr(dashes));
}

}  // namespace

void Arguments::flag(std::string_view names, bool& into, std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = parser_->app.add_flag(std::string(names), into, std::string(doc));
}

void Arguments::option(std::string_view names, std::string& into, std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = add(parser_->app, names, into, doc)->type_name("TEXT");
}

void Arguments::option(std::string_view names, std::uint64_t& into, std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = add(parser_->app, names, into, doc)->type_name("N")->check(check_whole);
}

void Arguments::option(std::string_view names, std::optional<std::uint64_t>& into,
                       std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = add(parser_->app, names, into, doc)->type_name("N")->check(check_whole);
}

void Arguments::option(std::string_view names, double& into, std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = add(parser_->app, names, into, doc)->type_name("X");
}

void Arguments::repeated(std::string_view names, std::vector<std::string>& into,
                         std::string_view doc) {
  note_flags(parser_->flags, names);
  parser_->last = add(parser_->app, names, into, doc)->type_name("TEXT")->expected(1)->take_all();
}

void Arguments::required() { parser_->last->required(); }

void Arguments::epilogue(std::string_view text) { parser_->app.footer(std::string(text)); }

Result<Arguments::Outcome> Arguments::parse(const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (word == "--") break;
    if (word.size() < 3 || word.compare(0, 2, "--") != 0) continue;
    const std::string name = word.substr(0, word.find('='));
    const auto& flags = parser_->flags;
    if (std::find(flags.begin(), flags.end(), name) != flags.end()) continue;
    const std::string_view near =
        spec::nearest_word(name, std::vector<std::string_view>(flags.begin(), flags.end()));
    std::string message = "unknown option " + name;
    if (!near.empty()) message += "; did you mean " + std::string(near) + "?";
    return Error{ErrorCode::invalid_argument, message};
  }
  try {
    std::vector<std::string> reversed(words.rbegin(), words.rend());  // as CLI11 takes them
    parser_->app.parse(std::move(reversed));
    return Outcome::parsed;
  } catch (const CLI::CallForHelp&) {
    return Outcome::help;
  } catch (const CLI::ParseError& error) {
    return Error{ErrorCode::invalid_argument, error.what()};
  }
}

std::string Arguments::help() const { return parser_->app.help(); }

}  // namespace tutti::cli
