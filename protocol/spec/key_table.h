// One visible table of keys per kind of file, from which parsing, nearest words, printing and help
// come.
//
// A Key is a dotted path, what it takes, where its value goes, and a sentence about it. Sections
// are the paths' prefixes. To add a key: one member in the struct, one row in its table.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace tutti::spec {

// The member that a key's value is read into.
using Target =
    std::variant<std::string*, bool*, double*, std::int32_t*, std::uint16_t*, std::uint32_t*,
                 std::uint64_t*, std::vector<std::string>*, std::vector<double>*,
                 std::map<std::string, std::string>*, std::vector<std::uint64_t>*,
                 std::vector<std::map<std::string, std::string>>*>;
using Reach = Target (*)(void* object);

enum class Form {
  text,
  name,
  choice,
  flag,
  whole,
  number,
  time,  // of day, in UTC
  wholes,
  duration,
  patience,  // a duration or `never`, which is 0
  bytes,
  texts,
  numbers,
  text_map,
  text_maps
};

// What may stand behind a key. For lists min and max bound each item.
struct Takes {
  Form form = Form::text;
  double min = 0;
  double max = 0;
  std::span<const std::string_view> choices;  // choice
  std::span<const std::string_view> later;  // choice: real words that this version does not support
};

// The kinds of job that a key belongs to, as bits.
using Kinds = unsigned;
inline constexpr Kinds kTrain = 1;
inline constexpr Kinds kServe = 2;
inline constexpr Kinds kRun = 4;
inline constexpr Kinds kEvery = kTrain | kServe | kRun;

enum class Need { optional, required };
inline constexpr Need kOptional = Need::optional;
inline constexpr Need kRequired = Need::required;

struct Key {
  std::string_view path;
  Takes takes;
  Kinds kinds = kEvery;
  Need need = Need::optional;
  Reach at = nullptr;
  std::string_view doc;
};

// A map of keys that may also be written as one word or number: `parallel: auto`, `ranks: 2`. Each
// of `sets` gets it.
struct Shorthand {
  std::string_view section;
  std::string_view word;  // the only word allowed, which sets nothing; empty: a value
  std::span<const std::string_view> sets;  // paths
};

// A key that the design knows and this version does not have.
struct LaterKey {
  std::string_view path;
};

struct Table {
  std::span<const Key> keys;
  std::span<const Shorthand> shorthands;
  std::span<const LaterKey> later;
};

// reach<&JobSpec::train, &TrainSpec::steps> finds the member in a JobSpec.
template <class Owner, class Member>
Owner owner_of(Member Owner::*);

template <auto first, auto... rest>
Target reach(void* object) {
  auto& member = static_cast<decltype(owner_of(first))*>(object)->*first;
  if constexpr (sizeof...(rest) == 0) {
    return &member;
  } else {
    return reach<rest...>(&member);
  }
}

// A whole number that fits the member; `max` narrows it.
inline Takes whole(double min, double max) { return {Form::whole, min, max, {}, {}}; }
inline Takes number(double min, double max) { return {Form::number, min, max, {}, {}}; }
inline Takes numbers(double min, double max) { return {Form::numbers, min, max, {}, {}}; }
inline Takes wholes(double min, double max) { return {Form::wholes, min, max, {}, {}}; }
inline Takes form(Form of) { return {of, 0, std::numeric_limits<double>::max(), {}, {}}; }
inline Takes choice(std::span<const std::string_view> choices,
                    std::span<const std::string_view> later = {}) {
  return {Form::choice, 0, 0, choices, later};
}

// For help and errors: "a whole number", "one of constant, linear, cosine".
std::string describe(const Takes& takes);

// "train and serve".
std::string kinds_text(Kinds kinds);

// Whether the path is `section` or lies in it ("" holds all).
bool within(std::string_view path, std::string_view section);

}  // namespace tutti::spec
