// A value of any described struct with every field set to something that is not its default, so
// that a test of a format meets all of it, also what is added later.
//
// Numbers count on, texts are "text-N", lists have two elements, an enum is its last name. This
// header is costly to instantiate (codec.h).
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protocol/wire/codec.h"
#include "protocol/wire/kinds.h"

namespace tutti::sample {

template <class T>
void fill(T& value, std::uint64_t& next);
template <class T>
void fill(std::vector<T>& values, std::uint64_t& next);
template <class Key, class T>
void fill(std::map<Key, T>& values, std::uint64_t& next);

template <class T>
void fill(std::optional<T>& value, std::uint64_t& next) {
  fill(value.emplace(), next);
}
template <class T>
void fill(std::vector<T>& values, std::uint64_t& next) {
  values.resize(2);
  for (T& each : values) fill(each, next);
}
template <class Key, class T>
void fill(std::map<Key, T>& values, std::uint64_t& next) {
  for (int i = 0; i < 2; ++i) {
    std::pair<Key, T> pair;
    fill(pair.first, next);
    fill(pair.second, next);
    values.insert(std::move(pair));
  }
}

template <class T>
void fill(T& value, std::uint64_t& next) {
  if constexpr (std::same_as<T, std::string>) {
    value = "text-" + std::to_string(++next);
  } else if constexpr (std::same_as<T, bool>) {
    value = !value;
  } else if constexpr (std::floating_point<T>) {
    value = static_cast<T>(++next) + T{0.5};
  } else if constexpr (std::integral<T>) {
    value = static_cast<T>(++next);
  } else if constexpr (std::same_as<T, Duration>) {
    value = Duration(++next);
  } else if constexpr (std::same_as<T, WallTime>) {
    fill(value.unix_ms, next);
  } else if constexpr (std::same_as<T, Instant>) {
    fill(value.since_start, next);
  } else if constexpr (wire::detail::kIsId<T>) {
    value.value = ++next;
  } else if constexpr (wire::detail::DescribedEnum<T>) {
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<T>>(
        [&](auto enumerator) { value = enumerator.value; });
  } else {
    static_assert(wire::detail::DescribedStruct<T>);
    boost::mp11::mp_for_each<wire::detail::Members<T>>(
        [&](auto member) { fill(value.*member.pointer, next); });
  }
}

template <class T>
T filled() {
  T out;
  std::uint64_t next = 0;
  fill(out, next);
  return out;
}

// For each row of a table of kinds: its number, and what is to be done with its type.
template <class Do, class... Messages, std::uint16_t... Numbers>
void for_each_kind(const Do& action, wire::KindTable<wire::Kind<Messages, Numbers>...>) {
  (action.template operator()<Messages>(Numbers), ...);
}

}  // namespace tutti::sample
