// What the ledger says of its own parts, so that files which were copied at different moments are
// told from a whole ledger.
//
// A copy made by other programs takes the file and then the log beside it. If the log began anew in
// between (a checkpoint), pages of two moments meet, each of them sound. So each transaction
// writes, beside its rows, a sum over all rows of the part that it changed. The sums are one page,
// of one moment: where the rows are of another, they differ.
//
//   seal          rows                     of each
//   facts         since the snapshot       number, kind and check
//   records       of the snapshot          number, kind and check
//   access        all                      id and a check of the body
//   last_event    the newest               its number
//   last_audit    the newest               its number
//
// Private to this folder. They are rows of `counters`, `seal_` before their names; a ledger without
// them is an older version's.
#pragma once

#include <cstdint>
#include <string_view>

#include "coordinator/ledger/sqlite.h"
#include "protocol/base/result.h"

namespace tutti::coordinator {

// FNV-1a.
std::uint64_t hash_of_body(std::string_view body);

// A row's part of a sum; the order of rows does not matter.
std::uint64_t row_seal(std::uint64_t number, std::uint64_t value);

// The sum as the rows have it. Names: those above.
Result<std::uint64_t> seal_of_rows(sqlite3* database, std::string_view seal);

// Writes one: name, value.
Result<Statement> prepare_seal(sqlite3* database);
Result<> write_seal(Statement& put, std::string_view seal, std::uint64_t value);

// Errors: corrupt, with what to do.
Result<> check_seals(sqlite3* database);

}  // namespace tutti::coordinator
