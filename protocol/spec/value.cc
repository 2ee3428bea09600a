#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "protocol/spec/fill.h"
#include "protocol/spec/quantity.h"

namespace tutti::spec {

namespace {

Error wrong(const Node& node, std::string_view path, std::string_view expected) {
  return error_at(node.place, fmt::format("{} must be {}, not {}", path, expected, describe(node)));
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return std::nullopt;
  if constexpr (std::is_floating_point_v<Number>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

bool plain_scalar(const Node& node) { return node.form == Node::Form::scalar && !node.quoted; }

// Digits that from_chars refuses because they do not fit are still a whole number to the reader.
bool looks_whole(std::string_view text) {
  if (!text.empty() && text.front() == '-') text.remove_prefix(1);
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string print_number(double value) { return fmt::format("{}", value); }

std::string range_of(const Takes& takes) {
  if (takes.max >= std::numeric_limits<double>::max()) return "at least " + print_number(takes.min);
  return fmt::format("between {} and {}", print_number(takes.min), print_number(takes.max));
}

bool in_range(const Takes& takes, double value) { return value >= takes.min && value <= takes.max; }

template <class Whole>
Result<> read_whole(const Node& node, const Key& key, Whole& target) {
  if (!plain_scalar(node) || !looks_whole(node.text))
    return wrong(node, key.path, "a whole number");
  const auto value = parse_number<Whole>(node.text);
  if (!value || !in_range(key.takes, static_cast<double>(*value))) {
    return wrong(node, key.path, range_of(key.takes));
  }
  target = *value;
  return {};
}

Result<> read_number(const Node& node, std::string_view path, const Takes& takes, double& target) {
  const auto value = plain_scalar(node) ? parse_number<double>(node.text) : std::nullopt;
  if (!value) return wrong(node, path, "a number");
  if (!in_range(takes, *value)) return wrong(node, path, range_of(takes));
  target = *value;
  return {};
}

Result<> read_quantity(const Node& node, const Key& key, std::uint64_t& target) {
  const bool patience = key.takes.form == Form::patience;
  const bool duration = key.takes.form == Form::duration || patience;
  if (patience && plain_scalar(node) && node.text == "never") {
    target = 0;
    return {};
  }
  if (node.form == Node::Form::scalar) {
    const auto value = key.takes.form == Form::time ? parse_time_unix_ms(node.text)
                       : duration                   ? parse_duration_ms(node.text)
                                                    : parse_bytes(node.text);
    if (value && !(patience && *value == 0)) {
      target = *value;
      return {};
    }
  }
  return wrong(node, key.path, describe(key.takes));
}

// A name becomes part of folder names, process titles and metrics.
bool is_name(std::string_view text) {
  constexpr std::size_t kNameMax = 64;
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (text.empty() || text.size() > kNameMax || !letter(text.front())) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return letter(c) || c == '.' || c == '_' || c == '-'; });
}

Result<> read_text(const Node& node, const Key& key, std::string& target) {
  if (node.form != Node::Form::scalar) return wrong(node, key.path, describe(key.takes));
  if (key.takes.form == Form::name && !is_name(node.text)) {
    return wrong(node, key.path, describe(key.takes));
  }
  if (key.takes.form == Form::choice) {
    const auto has = [&](std::span<const std::string_view> words) {
      return std::find(words.begin(), words.end(), node.text) != words.end();
    };
    if (has(key.takes.later)) {
      return error_at(node.place,
                      fmt::format("{} {} is not supported by this version ({} is)", key.path,
                                  node.text, fmt::join(key.takes.choices, ", ")),
                      ErrorCode::unsupported);
    }
    if (!has(key.takes.choices)) {
      return error_at(
          node.place,
          fmt::format("unknown value {} for {}{}", describe(node), key.path,
                      suggestion(node.text, {key.takes.choices.begin(), key.takes.choices.end()})));
    }
  }
  if (key.need == Need::required && node.text.empty()) {
    return error_at(node.place, fmt::format("{} must not be empty", key.path));
  }
  target = node.text;
  return {};
}

Result<> read_flag(const Node& node, const Key& key, bool& target) {
  if (!plain_scalar(node) || (node.text != "true" && node.text != "false")) {
    return wrong(node, key.path, "true or false");
  }
  target = node.text == "true";
  return {};
}

Result<> read_texts(const Node& node, const Key& key, std::vector<std::string>& target) {
  if (node.form != Node::Form::list) return wrong(node, key.path, "a list of texts");
  target.clear();
  for (const Node& item : node.items) {
    if (item.form != Node::Form::scalar) {
      return wrong(item, fmt::format("{}[{}]", key.path, target.size()), "a text");
    }
    target.push_back(item.text);
  }
  return {};
}

Result<> read_numbers(const Node& node, const Key& key, std::vector<double>& target) {
  if (node.form != Node::Form::list) return wrong(node, key.path, "a list of numbers");
  target.clear();
  for (const Node& item : node.items) {
    double value = 0;
    const std::string path = fmt::format("{}[{}]", key.path, target.size());
    if (Result<> read = read_number(item, path, key.takes, value); !read) return read;
    target.push_back(value);
  }
  return {};
}

Result<> read_wholes(const Node& node, const Key& key, std::vector<std::uint64_t>& target) {
  if (node.form != Node::Form::list) return wrong(node, key.path, "a list of whole numbers");
  target.clear();
  for (const Node& item : node.items) {
    std::uint64_t value = 0;
    const std::string path = fmt::format("{}[{}]", key.path, target.size());
    Key each = key;
    each.path = path;
    if (Result<> read = read_whole(item, each, value); !read) return read;
    target.push_back(value);
  }
  return {};
}

Result<> read_text_map(const Node& node, const Key& key,
                       std::map<std::string, std::string>& target) {
  if (node.form != Node::Form::map) return wrong(node, key.path, "a map of texts");
  target.clear();
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const std::string path = fmt::format("{}.{}", key.path, node.keys[i].text);
    if (node.keys[i].text.empty() || node.keys[i].text.find('=') != std::string::npos) {
      return error_at(node.keys[i].place, fmt::format("{} has a name that cannot be set", path));
    }
    if (node.items[i].form != Node::Form::scalar) return wrong(node.items[i], path, "a text");
    target[node.keys[i].text] = node.items[i].text;
  }
  return {};
}

Result<> read_text_maps(const Node& node, const Key& key,
                        std::vector<std::map<std::string, std::string>>& target) {
  if (node.form != Node::Form::list) return wrong(node, key.path, "a list of maps");
  target.clear();
  for (const Node& item : node.items) {
    const std::string path = fmt::format("{}[{}]", key.path, target.size());
    Key each = key;
    each.path = path;
    if (Result<> read = read_text_map(item, each, target.emplace_back()); !read) return read;
  }
  return {};
}

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang needs it before version 17

}  // namespace

Result<> read_value(const Node& node, const Key& key, Target target) {
  return std::visit(
      Overloaded{
          [&](std::string* text) { return read_text(node, key, *text); },
          [&](bool* flag) { return read_flag(node, key, *flag); },
          [&](double* value) { return read_number(node, key.path, key.takes, *value); },
          [&](std::uint64_t* value) {
            return key.takes.form == Form::whole ? read_whole(node, key, *value)
                                                 : read_quantity(node, key, *value);
          },
          [&](std::vector<std::string>* texts) { return read_texts(node, key, *texts); },
          [&](std::vector<double>* values) { return read_numbers(node, key, *values); },
          [&](std::map<std::string, std::string>* texts) {
            return read_text_map(node, key, *texts);
          },
          [&](std::vector<std::map<std::string, std::string>>* maps) {
            return read_text_maps(node, key, *maps);
          },
          [&](std::vector<std::uint64_t>* values) { return read_wholes(node, key, *values); },
          [&](auto* value) { return read_whole(node, key, *value); }},
      target);
}

namespace {

// Words that YAML readers take for something else than text.
constexpr std::string_view kReserved[] = {"true", "false", "null", "yes", "no",
                                          "on",   "off",   "y",    "n"};

bool reads_back_plain(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto inside = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' || c == '-';
  };
  if (text.empty() || !(letter(text.front()) || text.front() == '/')) return false;
  if (!std::all_of(text.begin(), text.end(), inside)) return false;
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::find(std::begin(kReserved), std::end(kReserved), lower) == std::end(kReserved);
}

template <class Range, class Print>
std::string join(const Range& range, Print print) {
  std::string joined;
  for (const auto& item : range) joined += (joined.empty() ? "" : ", ") + print(item);
  return joined;
}

}  // namespace

std::string quote(std::string_view text) {
  if (reads_back_plain(text)) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (code < 0x20 || code == 0x7f) {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned>(code));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string print_text_map(const std::map<std::string, std::string>& texts) {
  if (texts.empty()) return "";
  return '{' +
         join(texts,
              [](const auto& entry) { return quote(entry.first) + ": " + quote(entry.second); }) +
         '}';
}

std::string print_value(const Key& key, Target target) {
  const auto print_whole = [&](auto value) -> std::string {
    if (key.takes.form == Form::duration) return print_duration(static_cast<std::uint64_t>(value));
    if (key.takes.form == Form::patience) {
      return value == 0 ? "never" : print_duration(static_cast<std::uint64_t>(value));
    }
    if (key.takes.form == Form::time) {
      return value == 0 ? "" : print_time(static_cast<std::uint64_t>(value));
    }
    if (key.takes.form == Form::bytes) return print_bytes(static_cast<std::uint64_t>(value));
    return in_range(key.takes, static_cast<double>(value)) ? fmt::format("{}", value) : "";
  };
  return std::visit(
      Overloaded{
          [](const std::string* text) { return text->empty() ? "" : quote(*text); },
          [](const bool* flag) { return std::string(*flag ? "true" : "false"); },
          [](const double* value) { return print_number(*value); },
          [](const std::vector<std::string>* texts) {
            return texts->empty()
                       ? ""
                       : '[' + join(*texts, [](const auto& t) { return quote(t); }) + ']';
          },
          [](const std::vector<double>* values) { return '[' + join(*values, print_number) + ']'; },
          [](const std::vector<std::uint64_t>* values) {
            return values->empty()
                       ? ""
                       : '[' + join(*values, [](auto v) { return std::to_string(v); }) + ']';
          },
          [](const std::map<std::string, std::string>* texts) { return print_text_map(*texts); },
          [](const std::vector<std::map<std::string, std::string>>* maps) {
            return maps->empty() ? "" : '[' + join(*maps, print_text_map) + ']';
          },
          [&](const auto* value) { return print_whole(*value); }},
      target);
}

std::string describe(const Takes& takes) {
  switch (takes.form) {
    case Form::text: return "a text";
    case Form::name: return "a name (letters, digits, '.', '_', '-'; at most 64)";
    case Form::choice: return fmt::format("one of {}", fmt::join(takes.choices, ", "));
    case Form::flag: return "true or false";
    case Form::whole: return "a whole number " + range_of(takes);
    case Form::number: return "a number " + range_of(takes);
    case Form::time: return "a time in UTC such as 2026-11-24T12:00:00Z";
    case Form::wholes: return "a list of whole numbers " + range_of(takes);
    case Form::duration: return "a duration such as 500ms, 60s, 5m, 1h or 2d";
    case Form::patience: return "never or a duration such as 60s, 5m, 1h or 2d";
    case Form::bytes: return "a size such as 512MiB or 2GiB";
    case Form::texts: return "a list of texts";
    case Form::numbers: return "a list of numbers " + range_of(takes);
    case Form::text_map: return "a map of texts";
    case Form::text_maps: return "a list of maps";
  }
  return "";
}

}  // namespace tutti::spec
