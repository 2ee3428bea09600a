// Result<T>: a value or an Error. Result<> carries no value.
//
//   Result<Config> load(path);
//   auto config = load(path);
//   if (!config) return config.error();
//   use(*config);
//
// Reading the side that is not there is a broken invariant and aborts.
#pragma once

#include <optional>
#include <utility>
#include <variant>

#include "protocol/base/assert.h"
#include "protocol/base/error.h"

namespace tutti {

template <class T = void>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  explicit operator bool() const { return state_.index() == 0; }
  bool ok() const { return state_.index() == 0; }

  T& operator*() & { return checked(); }
  const T& operator*() const& { return checked(); }
  T&& operator*() && { return std::move(checked()); }
  T* operator->() { return &checked(); }
  const T* operator->() const { return &checked(); }

  const Error& error() const& {
    TUTTI_ASSERT(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    TUTTI_ASSERT(!ok());
    return std::get<1>(std::move(state_));
  }

 private:
  T& checked() {
    TUTTI_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  const T& checked() const {
    TUTTI_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }

  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  explicit operator bool() const { return !error_; }
  bool ok() const { return !error_; }

  const Error& error() const& {
    TUTTI_ASSERT(error_.has_value());
    return *error_;
  }
  Error&& error() && {
    TUTTI_ASSERT(error_.has_value());
    return *std::move(error_);
  }

 private:
  std::optional<Error> error_;
};

}  // namespace tutti
