// MessagePack without templates: an appending writer, and a reader that checks every step against
// the end of its bytes.
//
// msgpuck does the encoding of single items. Its mp_check is not relied on: it counts open items in
// an int, which a few bytes of input can overflow; so the reader tests each header and payload
// itself, once, as it goes.
//
// Limits: kNestingMax levels. Errors: the reader becomes failed at the first bad item and stays so;
// every later call gives a zero value. The caller looks once, at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/base/error.h"

namespace tutti::wire {

inline constexpr int kNestingMax = 16;

class BodyWriter {
 public:
  void map(std::size_t pairs);
  void array(std::size_t items);
  void text(std::string_view value);  // str, whatever bytes it holds
  void number(std::uint64_t value);
  void signed_number(std::int64_t value);
  void real(double value);
  void real(float value);
  void boolean(bool value);  // NOLINT: it is the value
  void nil();

  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class BodyReader {
 public:
  explicit BodyReader(std::string_view bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  std::size_t map();        // pairs that follow
  std::size_t array();      // items that follow
  std::string_view text();  // str or bin
  std::uint64_t number(std::uint64_t max);
  std::int64_t signed_number(std::int64_t min, std::int64_t max);
  double real();  // float, double or integer
  bool boolean();
  bool nil();   // consumes a nil if one is next
  void skip();  // one item, whatever it is

  // Entered and left around the items of a map or array.
  void enter();
  void leave() { --depth_; }

  bool failed() const { return failure_ != nullptr; }
  void fail(const char* reason) {
    if (failure_ == nullptr) failure_ = reason;
  }
  // The field being read when it failed; the first one named, the innermost, stays.
  void blame(const char* field) {
    if (field_ == nullptr) field_ = field;
  }
  // corrupt, with reason and field. Only if failed.
  Error error() const;

  bool at_end() const { return at_ == end_; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

 private:
  bool expect(bool there);
  bool expect_header();
  void skip_payload(std::uint64_t bytes);
  void skip_extension();

  const char* at_;
  const char* end_;
  const char* failure_ = nullptr;
  const char* field_ = nullptr;
  int depth_ = 0;
};

}  // namespace tutti::wire
