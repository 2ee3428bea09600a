#include "coordinator/ledger/seals.h"

#include <fmt/core.h>

#include <algorithm>

#include "protocol/base/assert.h"

namespace tutti::coordinator {

namespace {

enum class Sum { of_rows, of_bodies, newest };

struct SealRow {
  std::string_view name;
  Sum sum;
  std::string_view rows;
};

constexpr SealRow kSeals[] = {
    {"facts", Sum::of_rows, "select number, kind from facts"},
    {"records", Sum::of_rows, "select number, kind from records"},
    {"access", Sum::of_bodies, "select id, body from access"},
    {"last_event", Sum::newest, "select coalesce(max(seq), 0) from events"},
    {"last_audit", Sum::newest, "select coalesce(max(seq), 0) from audit"},
};

Result<std::uint64_t> sum_of(sqlite3* database, const SealRow& seal) {
  if (seal.sum == Sum::newest) return single_number(database, seal.rows);
  Result<Statement> rows = Statement::prepare(database, seal.rows);
  if (!rows) return rows.error();
  std::uint64_t sum = 0;
  while (true) {
    const Result<bool> row = rows->step();
    if (!row) return row.error();
    if (!*row) return sum;
    sum += row_seal(rows->number(0),
                    seal.sum == Sum::of_rows ? rows->number(1) : hash_of_body(rows->blob(1)));
  }
}

}  // namespace

std::uint64_t hash_of_body(std::string_view body) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : body) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

std::uint64_t row_seal(std::uint64_t number, std::uint64_t value) {
  // The finalizer of splitmix64 (Steele, Lea, Flood 2014), twice.
  const auto mix = [](std::uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
  };
  return mix(mix(number + 1) ^ value);
}

Result<std::uint64_t> seal_of_rows(sqlite3* database, std::string_view seal) {
  const auto* row = std::find_if(std::begin(kSeals), std::end(kSeals),
                                 [&](const SealRow& each) { return each.name == seal; });
  TUTTI_ASSERT(row != std::end(kSeals));
  return sum_of(database, *row);
}

Result<Statement> prepare_seal(sqlite3* database) {
  return Statement::prepare(
      database, "insert or replace into counters values ('seal_' || cast(? as text), ?)");
}

Result<> write_seal(Statement& put, std::string_view seal, std::uint64_t value) {
  put.bind(1, seal);
  put.bind(2, value);
  const Result<bool> done = put.step();
  return done ? Result<>{} : done.error();
}

Result<> check_seals(sqlite3* database) {
  for (const SealRow& seal : kSeals) {
    Result<Statement> written = Statement::prepare(
        database, fmt::format("select value from counters where name = 'seal_{}'", seal.name));
    if (!written) return written.error();
    const Result<bool> found = written->step();
    if (!found) return found.error();
    if (!*found) continue;
    const std::uint64_t expected = written->number(0);
    const Result<std::uint64_t> sum = sum_of(database, seal);
    if (!sum) return sum.error();
    if (*sum == expected) continue;
    return Error{ErrorCode::corrupt,
                 fmt::format("ledger: its parts are of different moments ({}); copy it again by "
                             "`tutti ledger backup`, or restore a backup",
                             seal.name)};
  }
  return {};
}

}  // namespace tutti::coordinator
