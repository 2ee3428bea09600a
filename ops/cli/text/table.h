// Tables and quantities as people read them in a terminal.
//
// Columns align by characters, not bytes; colours are only ever around a whole cell, after its
// width is known.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tutti::cli {

enum class Paint { plain, coloured };
enum class Align { left, right };

class Table {
 public:
  struct Column {
    std::string_view title;
    Align align = Align::left;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }

  // Title line and rows, each with a line break; two spaces between columns, none at a line's end.
  std::string print(Paint paint) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Characters that a terminal shows (code points; no double-width letters are expected).
std::size_t width_of(std::string_view utf8);

// At most `width` characters.
std::string shortened(std::string_view utf8, std::size_t width);

// "running" in green, "failed" in red, ...: words of states; others stay as they are.
std::string paint_word(std::string_view word, Paint paint);

std::string print_duration(double seconds);          // 340 ms, 12.3 s, 4 m 10 s, 3 h 5 m, 2 d 1 h
std::string print_count(double count);               // 950, 7.4k, 1.2M
std::string print_bytes_short(std::uint64_t bytes);  // 512 MiB
std::string print_clock(std::int64_t unix_ms);       // 14:03:12.345, local time
std::string print_date(std::int64_t unix_ms);        // 2026-05-01 14:03, local time

}  // namespace tutti::cli
