#include "protocol/wire/body.h"

#include <msgpuck.h>

#include <limits>

namespace tutti::wire {

namespace {

constexpr std::size_t kItemHeaderBytesMax = 9;

template <class Encode>
void append(std::string& out, Encode encode) {
  char buffer[kItemHeaderBytesMax];
  out.append(buffer, static_cast<std::size_t>(encode(buffer) - buffer));
}

std::uint32_t narrow(std::size_t size) {
  return static_cast<std::uint32_t>(size);  // frames and journal records are far below 4 GiB
}

}  // namespace

void BodyWriter::map(std::size_t pairs) {
  append(out_, [&](char* at) { return mp_encode_map(at, narrow(pairs)); });
}
void BodyWriter::array(std::size_t items) {
  append(out_, [&](char* at) { return mp_encode_array(at, narrow(items)); });
}
void BodyWriter::text(std::string_view value) {
  append(out_, [&](char* at) { return mp_encode_strl(at, narrow(value.size())); });
  out_.append(value);
}
void BodyWriter::number(std::uint64_t value) {
  append(out_, [&](char* at) { return mp_encode_uint(at, value); });
}
void BodyWriter::signed_number(std::int64_t value) {
  // MessagePack keeps non-negative numbers as unsigned; msgpuck's signed form takes negative ones
  // only.
  if (value >= 0) return number(static_cast<std::uint64_t>(value));
  append(out_, [&](char* at) { return mp_encode_int(at, value); });
}
void BodyWriter::real(double value) {
  append(out_, [&](char* at) { return mp_encode_double(at, value); });
}
void BodyWriter::real(float value) {
  append(out_, [&](char* at) { return mp_encode_float(at, value); });
}
void BodyWriter::boolean(bool value) {
  append(out_, [&](char* at) { return mp_encode_bool(at, value); });
}
void BodyWriter::nil() {
  append(out_, [](char* at) { return mp_encode_nil(at); });
}

namespace {

// Type of the item at `at`; there is at least one byte.
mp_type type_at(const char* at) { return mp_typeof(*at); }

// Bytes of an item's code with its number or length, without what follows; extensions are
// skip_extension's.
std::size_t header_bytes(char first) {
  switch (static_cast<unsigned char>(first)) {
    case 0xc4:
    case 0xd9:
    case 0xcc:
    case 0xd0: return 2;  // bin 8, str 8, uint 8, int 8
    case 0xc5:
    case 0xda:
    case 0xdc:
    case 0xde:
    case 0xcd:
    case 0xd1: return 3;  // .. 16, array, map
    case 0xc6:
    case 0xdb:
    case 0xdd:
    case 0xdf:
    case 0xce:
    case 0xd2:
    case 0xca: return 5;  // .. 32, float
    case 0xcf:
    case 0xd3:
    case 0xcb: return 9;  // uint 64, int 64, double
    default: return 1;
  }
}

}  // namespace

bool BodyReader::expect(bool there) {
  if (!there) fail("truncated");
  return !failed();
}

Error BodyReader::error() const {
  std::string message = failure_ == nullptr ? "not failed" : failure_;
  if (field_ != nullptr) message.append(" in field ").append(field_);
  return {ErrorCode::corrupt, std::move(message)};
}

bool BodyReader::expect_header() { return expect(left() >= header_bytes(*at_)); }

void BodyReader::enter() {
  if (++depth_ > kNestingMax) fail("nested too deeply");
}

std::size_t BodyReader::map() {
  if (failed() || !expect(at_ != end_)) return 0;
  if (type_at(at_) != MP_MAP) return fail("a map was expected"), 0;
  if (!expect_header()) return 0;
  const std::size_t pairs = mp_decode_map(&at_);
  if (pairs > left() / 2) return fail("truncated"), 0;  // an item is at least one byte
  return pairs;
}

std::size_t BodyReader::array() {
  if (failed() || !expect(at_ != end_)) return 0;
  if (type_at(at_) != MP_ARRAY) return fail("an array was expected"), 0;
  if (!expect_header()) return 0;
  const std::size_t items = mp_decode_array(&at_);
  if (items > left()) return fail("truncated"), 0;
  return items;
}

std::string_view BodyReader::text() {
  if (failed() || !expect(at_ != end_)) return {};
  std::uint32_t size = 0;
  if (type_at(at_) == MP_STR) {
    if (!expect_header()) return {};
    size = mp_decode_strl(&at_);
  } else if (type_at(at_) == MP_BIN) {
    if (!expect_header()) return {};
    size = mp_decode_binl(&at_);
  } else {
    return fail("a string was expected"), std::string_view{};
  }
  if (!expect(size <= left())) return {};
  const std::string_view value(at_, size);
  at_ += size;
  return value;
}

std::uint64_t BodyReader::number(std::uint64_t max) {
  if (failed() || !expect(at_ != end_)) return 0;
  if (type_at(at_) != MP_UINT) return fail("a non-negative number was expected"), 0;
  if (!expect_header()) return 0;
  const std::uint64_t value = mp_decode_uint(&at_);
  if (value > max) return fail("a number is out of range"), 0;
  return value;
}

std::int64_t BodyReader::signed_number(std::int64_t min, std::int64_t max) {
  if (failed() || !expect(at_ != end_)) return 0;
  if (type_at(at_) == MP_UINT) {
    return static_cast<std::int64_t>(number(static_cast<std::uint64_t>(max)));
  }
  if (type_at(at_) != MP_INT) return fail("a number was expected"), 0;
  if (!expect_header()) return 0;
  const std::int64_t value = mp_decode_int(&at_);
  if (value < min || value > max) return fail("a number is out of range"), 0;
  return value;
}

double BodyReader::real() {
  if (failed() || !expect(at_ != end_)) return 0;
  switch (type_at(at_)) {
    case MP_DOUBLE: return expect_header() ? mp_decode_double(&at_) : 0;
    case MP_FLOAT: return expect_header() ? static_cast<double>(mp_decode_float(&at_)) : 0;
    case MP_UINT: return static_cast<double>(number(std::numeric_limits<std::uint64_t>::max()));
    case MP_INT:
      return static_cast<double>(signed_number(std::numeric_limits<std::int64_t>::min(),
                                               std::numeric_limits<std::int64_t>::max()));
    default: fail("a number was expected"); return 0;
  }
}

bool BodyReader::boolean() {
  if (failed() || !expect(at_ != end_)) return false;
  if (type_at(at_) != MP_BOOL) return fail("true or false was expected"), false;
  return mp_decode_bool(&at_);
}

bool BodyReader::nil() {
  if (failed() || at_ == end_ || type_at(at_) != MP_NIL) return false;
  mp_decode_nil(&at_);
  return true;
}

void BodyReader::skip_payload(std::uint64_t bytes) {
  if (expect(bytes <= left())) at_ += bytes;
}

void BodyReader::skip_extension() {
  const auto code = static_cast<unsigned char>(*at_);
  if (code >= 0xd4 && code <= 0xd8) {  // fixext 1, 2, 4, 8, 16: code, type, data
    return skip_payload(2 + (std::uint64_t{1} << (code - 0xd4)));
  }
  if (code < 0xc7 || code > 0xc9) return fail("an unused code");  // 0xc1
  const std::size_t size_bytes = std::size_t{1}
                                 << (code - 0xc7);  // ext 8, 16, 32: code, size, type, data
  if (!expect(left() >= 2 + size_bytes)) return;
  std::uint64_t size = 0;
  for (std::size_t i = 0; i < size_bytes; ++i) {
    size = size << 8 | static_cast<unsigned char>(at_[1 + i]);
  }
  skip_payload(2 + size_bytes + size);
}

void BodyReader::skip() {
  // Counts open items instead of recursing. Every open item needs a byte, so the count stays below
  // left() and cannot overflow; depth needs no limit here.
  std::uint64_t open = 1;
  while (open > 0 && !failed()) {
    if (!expect(open <= left())) return;
    --open;
    switch (type_at(at_)) {
      case MP_MAP: open += 2 * static_cast<std::uint64_t>(map()); break;
      case MP_ARRAY: open += array(); break;
      case MP_STR:
      case MP_BIN: text(); break;
      case MP_UINT: number(std::numeric_limits<std::uint64_t>::max()); break;
      case MP_INT:
      case MP_FLOAT:
      case MP_DOUBLE: real(); break;
      case MP_BOOL: boolean(); break;
      case MP_NIL: nil(); break;
      default: skip_extension(); break;
    }
  }
}

}  // namespace tutti::wire
