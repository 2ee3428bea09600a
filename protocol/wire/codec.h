// Plain structs described with Boost.Describe <-> MessagePack maps by field name: the body of a
// frame or a journal record.
//
// Unknown fields are ignored and missing ones keep their default, so versions can mix. Ids are
// integers, enums their names, Duration nanoseconds, WallTime milliseconds, std::optional nil or
// its value; strings go out as str and may come in as bin. std::map is an array of [key, value]. A
// field of the wrong type is an error, not a default.
//
// This header is costly to instantiate: include it from .cc files only. Frames: link.h.
// Limits: kNestingMax levels; an array may not grow beyond kDecodedArrayBytesMax in memory.
// Errors: corrupt, naming the message and the field.
#pragma once

#include <boost/describe/enum_from_string.hpp>
#include <boost/describe/enum_to_string.hpp>
#include <boost/describe/enumerators.hpp>
#include <boost/describe/members.hpp>
#include <boost/mp11/algorithm.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"
#include "protocol/wire/body.h"

namespace tutti::wire {

// Small items in a frame can stand for large structs; this bounds what a frame of kFrameBytesMax
// can make us allocate.
inline constexpr std::size_t kDecodedArrayBytesMax = std::size_t{16} << 20;

namespace detail {

template <class T>
inline constexpr bool kIsId = false;
template <class Tag>
inline constexpr bool kIsId<Id<Tag>> = true;

template <class T>
using Members = boost::describe::describe_members<T, boost::describe::mod_public |
                                                         boost::describe::mod_inherited>;

template <class T>
concept DescribedStruct = std::is_class_v<T> && boost::describe::has_describe_members<T>::value;
template <class T>
concept DescribedEnum = std::is_enum_v<T> && boost::describe::has_describe_enumerators<T>::value;
template <class T>
concept Integer = std::integral<T> && !std::same_as<T, bool>;

// Writing

inline void write(BodyWriter& out, const std::string& value) { out.text(value); }
inline void write(BodyWriter& out, bool value) { out.boolean(value); }
inline void write(BodyWriter& out, float value) { out.real(value); }
inline void write(BodyWriter& out, double value) { out.real(value); }
inline void write(BodyWriter& out, Duration value) { out.signed_number(value.count()); }
inline void write(BodyWriter& out, WallTime value) { out.signed_number(value.unix_ms); }
inline void write(BodyWriter& out, Instant value) { out.signed_number(value.since_start.count()); }
template <class Tag>
void write(BodyWriter& out, Id<Tag> value) {
  out.number(value.value);
}
template <Integer T>
void write(BodyWriter& out, T value) {
  if constexpr (std::is_signed_v<T>) {
    out.signed_number(value);
  } else {
    out.number(value);
  }
}
template <DescribedEnum T>
void write(BodyWriter& out, T value) {
  const char* name = boost::describe::enum_to_string(value, nullptr);
  TUTTI_ASSERT(name != nullptr);
  out.text(name);
}
template <class T>
void write(BodyWriter& out, const std::optional<T>& value);
template <class T>
void write(BodyWriter& out, const std::vector<T>& values);
template <class Key, class T>
void write(BodyWriter& out, const std::map<Key, T>& values);

template <DescribedStruct T>
void write(BodyWriter& out, const T& value) {
  out.map(boost::mp11::mp_size<Members<T>>::value);
  boost::mp11::mp_for_each<Members<T>>([&](auto member) {
    out.text(member.name);
    write(out, value.*member.pointer);
  });
}
template <class T>
void write(BodyWriter& out, const std::optional<T>& value) {
  if (!value) return out.nil();
  write(out, *value);
}
template <class T>
void write(BodyWriter& out, const std::vector<T>& values) {
  out.array(values.size());
  for (const T& value : values) write(out, value);
}
template <class Key, class T>
void write(BodyWriter& out, const std::map<Key, T>& values) {
  out.array(values.size());
  for (const auto& [key, value] : values) {
    out.array(2);
    write(out, key);
    write(out, value);
  }
}

// Reading

inline void read(BodyReader& in, std::string& value) { value = in.text(); }
inline void read(BodyReader& in, bool& value) { value = in.boolean(); }
inline void read(BodyReader& in, double& value) { value = in.real(); }
inline void read(BodyReader& in, float& value) { value = static_cast<float>(in.real()); }
template <Integer T>
void read(BodyReader& in, T& value) {
  using Limits = std::numeric_limits<T>;
  if constexpr (std::is_signed_v<T>) {
    value = static_cast<T>(in.signed_number(Limits::min(), Limits::max()));
  } else {
    value = static_cast<T>(in.number(Limits::max()));
  }
}
inline void read(BodyReader& in, Duration& value) {
  std::int64_t count = 0;
  read(in, count);
  value = Duration(count);
}
inline void read(BodyReader& in, WallTime& value) { read(in, value.unix_ms); }
inline void read(BodyReader& in, Instant& value) { read(in, value.since_start); }
template <class Tag>
void read(BodyReader& in, Id<Tag>& value) {
  value.value = in.number(std::numeric_limits<std::uint64_t>::max());
}
template <DescribedEnum T>
void read(BodyReader& in, T& value) {
  const std::string name(in.text());
  if (!in.failed() && !boost::describe::enum_from_string(name.c_str(), value))
    in.fail("an unknown name");
}
template <class T>
void read(BodyReader& in, std::optional<T>& value);
template <class T>
void read(BodyReader& in, std::vector<T>& values);
template <class Key, class T>
void read(BodyReader& in, std::map<Key, T>& values);

template <DescribedStruct T>
void read(BodyReader& in, T& value) {
  in.enter();
  const std::size_t pairs = in.map();
  for (std::size_t i = 0; i < pairs && !in.failed(); ++i) {
    const std::string_view name = in.text();
    bool known = false;
    boost::mp11::mp_for_each<Members<T>>([&](auto member) {
      if (known || name != member.name) return;
      known = true;
      read(in, value.*member.pointer);
      if (in.failed()) in.blame(member.name);
    });
    if (!known) in.skip();
  }
  in.leave();
}
template <class T>
void read(BodyReader& in, std::optional<T>& value) {
  value.reset();
  if (in.nil()) return;
  read(in, value.emplace());
}
template <class T>
void read(BodyReader& in, std::vector<T>& values) {
  in.enter();
  values.clear();
  const std::size_t count = in.array();
  if (count > kDecodedArrayBytesMax / sizeof(T)) in.fail("an array is too long");
  for (std::size_t i = 0; i < count && !in.failed(); ++i) read(in, values.emplace_back());
  in.leave();
}
template <class Key, class T>
void read(BodyReader& in, std::map<Key, T>& values) {
  in.enter();
  values.clear();
  const std::size_t count = in.array();
  if (count > kDecodedArrayBytesMax / sizeof(std::pair<Key, T>)) in.fail("an array is too long");
  for (std::size_t i = 0; i < count && !in.failed(); ++i) {
    if (in.array() != 2) in.fail("a pair was expected");
    std::pair<Key, T> pair;
    read(in, pair.first);
    read(in, pair.second);
    if (!in.failed()) values.insert(std::move(pair));
  }
  in.leave();
}

}  // namespace detail

template <detail::DescribedStruct T>
std::string encode_body(const T& value) {
  BodyWriter out;
  detail::write(out, value);
  return out.take();
}

// One whole value; bytes behind it are an error.
template <detail::DescribedStruct T>
Result<T> decode_body(std::string_view bytes) {
  BodyReader in(bytes);
  T value;
  detail::read(in, value);
  if (!in.failed() && !in.at_end()) in.fail("bytes behind the value");
  if (in.failed()) return in.error();
  return value;
}

}  // namespace tutti::wire
